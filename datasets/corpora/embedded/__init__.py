"""The corpora that Crossfold makes itself: `puppets` and `synthetic`, with known truth.

May import: `datasets/corpora`, `datasets/corpora/recola`, `datasets/media`, `datasets/store`, `platform/core`.
"""

# To import a reader registers its corpus.
from crossfold.datasets.corpora.embedded import synthetic_reader as synthetic_reader
