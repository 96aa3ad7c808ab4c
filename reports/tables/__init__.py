"""The papers' tables, the leaderboard and the claims, as values and as text.

May import: `reports/results`, `reports/stats`, `platform/core`, `sweeps`.
Public: `build_leaderboard`, `table_ids`, `table_spec`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"leaderboard": ["build_leaderboard"], "published": ["table_ids", "table_spec"]}
)
