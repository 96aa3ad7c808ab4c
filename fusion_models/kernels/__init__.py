"""Functions that blocks are made of: quicker than torch's layers, with gradients of their own, equal up to rounding.

May import: `fusion_models`.
"""
