"""Which worker takes which cell, and when: queue, order, workers, monitor. No Ray.

May import: `platform/core`, `platform/workspace`, `platform/execution`.
Public: `CellQueue`, `FleetOptions`, `LocalFleet`, `Monitor`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cell_queue": ["CellQueue"],
        "fleet_options": ["FleetOptions"],
        "local_fleet": ["LocalFleet"],
        "monitor": ["Monitor"],
    },
)
