"""Benchmarks of audio-visual fusion for dimensional emotion recognition: `import crossfold as cf`.

    cf.prepare("synthetic")                                        a feature store of a corpus
    run = cf.train(system="rjca", corpus="synthetic", target="valence")
    run.scores, run.curve, run.predictions, run.model              what one training run gives
    cf.load(run.cell_id).predict({"audio": ..., "visual": ...})    frames in, a table out
    cf.sweep("demo")                                               a grid of runs on Ray workers
    cf.Workspace().results()                                       everything that finished, as one table
    cf.report()                                                    the HTML page
    cf.power("demo", gain=0.01)                                    the chance that such a gain is seen
    cf.load_plugin("my_fusion.py")                                 a system of yours, by the name it registers

Names are imported when they are first used: `import crossfold` alone loads neither torch nor Ray nor pandas.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from crossfold.platform.core.errors import UserError as UserError
    from crossfold.platform.core.registry import load_plugin as load_plugin
    from crossfold.platform.edge.api.corpora import prepare as prepare
    from crossfold.platform.edge.api.trained_cell import TrainedCell as TrainedCell
    from crossfold.platform.edge.api.trained_cell import load as load
    from crossfold.platform.edge.api.training import sweep as sweep
    from crossfold.platform.edge.api.training import train as train
    from crossfold.platform.edge.api.workspace import Workspace as Workspace
    from crossfold.platform.edge.api.workspace import power as power
    from crossfold.platform.edge.api.workspace import report as report

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "platform.core.errors": ["UserError"],
        "platform.core.registry": ["load_plugin"],
        "platform.edge.api.corpora": ["prepare"],
        "platform.edge.api.trained_cell": ["TrainedCell", "load"],
        "platform.edge.api.training": ["sweep", "train"],
        "platform.edge.api.workspace": ["Workspace", "power", "report"],
    },
)
__all__ += ["__version__"]
