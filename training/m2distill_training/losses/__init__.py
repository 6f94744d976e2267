"""Losses, pure functions of tensors.

bc.py             behaviour cloning
distill.py        distillation terms of M2Distill
subspace.py       distillation terms of spread
consolidation.py  penalty of EWC
"""
