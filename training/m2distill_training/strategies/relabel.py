"""M2Distill with relabelled samples: the teacher also answers old instructions in scenes of the new task.

Teacher and student receive the new demonstrations a second time, with the instructions of replayed samples, and the
four terms apply there as well. Nothing more has to be stored.
"""

import torch

from m2distill_training.strategies.base import Samples
from m2distill_training.strategies.m2distill import M2Distill, ShownSamples, rows_of


class Relabel(M2Distill):
    """Distillation on replayed and relabelled samples; `distill.on` selects which of them."""

    relabels = True

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        n, text = samples.n_current, samples.inputs["text"]
        replayed = text[n:][:n]  # one current sample for each
        rows = torch.cat([torch.arange(len(text)), torch.arange(len(replayed))])
        inputs = rows_of(samples.inputs, rows)
        inputs["text"] = torch.cat([text, replayed])
        return ShownSamples(inputs, n, len(text), rows, windows=samples.windows)
