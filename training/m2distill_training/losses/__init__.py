"""Losses, pure functions of tensors.

bc.py             behaviour cloning
distill.py        distillation terms of M2Distill
consolidation.py  penalty of EWC
"""
