"""M2Distill that asks the teacher about more than the few replayed demonstrations: what would it do in a scene of the
new task, were it told an old instruction? The new demonstrations are shown to teacher and student a second time, under
the instructions of replayed samples, and the four terms hold there as well. Nothing more has to be stored.
"""

import torch
from torch import Tensor

from m2distill_policy.models import Batch
from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.m2distill import M2Distill, rows_of


class Relabel(M2Distill):
    """The teacher is asked about replayed and relabelled samples, whatever `distill.on` says."""

    def distillation_inputs(self, samples: Samples) -> tuple[Batch, slice, slice | Tensor]:
        n, text = samples.n_current, samples.inputs["text"]
        told = text[n:][:n]  # one current sample for each
        shown = torch.cat([torch.arange(len(text)), torch.arange(len(told))])
        inputs = rows_of(samples.inputs, shown)
        inputs["text"] = torch.cat([text, told])
        return inputs, slice(n, None), shown[n:]
