"""The module that models saved by earlier versions name in their `MLmodel` file; MLflow loads them by it."""

from crossfold.platform.edge.tracking.pyfunc_model import _load_pyfunc as _load_pyfunc
