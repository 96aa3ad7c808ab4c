"""From sweeps to finished cells: checks before work, then a fleet that is driven to its end.

May import: `platform/core`, `platform/workspace`, `platform/modeling`, `platform/evaluation`, `platform/execution`,
`platform/scheduling`, `platform/edge/fleet`, `platform/edge/terminal`, `platform/edge/tracking`, `datasets/store`,
`sweeps`.
"""
