"""The reader of RECOLA: its rating files, its gold standard, its folders.

May import: `datasets/corpora`, `datasets/media`, `platform/core`.
"""

# To import a reader registers its corpus.
from crossfold.datasets.corpora.recola import reader as reader
