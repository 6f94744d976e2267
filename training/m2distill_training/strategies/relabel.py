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

    def asked(self, samples: Samples) -> tuple[Batch, slice, slice | Tensor]:
        n, total = samples.n_current, len(samples.action)
        told = samples.inputs["text"][n:][:n]  # one current sample for each
        relabelled = rows_of(samples.inputs, slice(len(told)))
        inputs = Batch(images={name: torch.cat([x, relabelled["images"][name]])
                               for name, x in samples.inputs["images"].items()},
                       joint=torch.cat([samples.inputs["joint"], relabelled["joint"]]),
                       gripper=torch.cat([samples.inputs["gripper"], relabelled["gripper"]]),
                       text=torch.cat([samples.inputs["text"], told]))
        return inputs, slice(n, None), torch.cat([torch.arange(n, total), torch.arange(len(told))])
