"""The reader of Aff-Wild2, whose layout the corpus `puppets` has, too.

May import: `datasets/corpora`, `datasets/media`.
"""

# To import a reader registers its corpus.
from crossfold.datasets.corpora.affwild2 import reader as reader
