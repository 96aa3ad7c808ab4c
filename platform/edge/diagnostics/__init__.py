"""What is wrong with this machine, or with a plug-in.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/edge/fleet`,
`platform/edge/terminal`, `fusion_models`, `fusion_models/backbones`, `datasets/corpora`, `datasets/store`.
Public: `check_plugin`, `check_system`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "plugin_contract": ["check_plugin", "check_system"],
    },
)
