"""`python -m crossfold.platform.edge.cli`, as jobs on a cluster start it."""

from crossfold.platform.edge.cli.app import main

main()
