"""The reader of any folder with a `manifest.csv`: media or extracted features, any targets.

May import: `datasets/corpora`, `datasets/media`, `platform/core`.
"""

# To import a reader registers its corpus.
from crossfold.datasets.corpora.manifest import reader as reader
