"""Ray: the cluster, the group of workers, the queue as an actor, jobs.

May import: `platform/core`, `platform/workspace`, `platform/workspace/remote`, `platform/training`,
`platform/execution`, `platform/scheduling`, `sweeps`.
Public: `Fleet`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ray_fleet": ["Fleet"],
    },
)
