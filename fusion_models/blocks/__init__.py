"""The parts that systems are composed of: attention, gates, readouts, encoders of time.

May import: `fusion_models`, `fusion_models/kernels`, `platform/core`.
Public: `CrossAttention`, `GatedBlock`, `JointAttention`, `LastReadout`, `MLPHead`, `TCN`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cross_attention": ["CrossAttention"],
        "gates": ["GatedBlock"],
        "heads": ["MLPHead"],
        "joint_attention": ["JointAttention"],
        "readout": ["LastReadout"],
        "temporal": ["TCN"],
    },
)
