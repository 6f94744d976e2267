"""M2Distill with recall: the teacher also answers every instruction that it knows, in current and replayed scenes.

Each sample is shown a second time under an instruction drawn from all that the previous policy knows, and the four
terms apply there as well. A task without a replayed demonstration is thereby kept too. Only the sentence embeddings of
earlier tasks are needed, which a checkpoint stores anyway. This strategy is ours.
"""

import torch

from m2distill_training.strategies.base import Samples, StageContext
from m2distill_training.strategies.m2distill import M2Distill, ShownSamples, rows_of


class Recall(M2Distill):
    """Distillation on the samples and on all of them under instructions of earlier tasks, drawn uniformly."""

    relabels = True

    def distillation_samples(self, samples: Samples) -> ShownSamples:
        return self.shown_twice(samples)

    def shown_twice(self, samples: Samples) -> ShownSamples:
        """Return the samples, and all of them again as the teacher is asked about them."""
        return recalled(self.context, samples)


def recalled(context: StageContext | None, samples: Samples) -> ShownSamples:
    """Return the samples, and all of them again under instructions of earlier tasks."""
    if context is None or len(context.instructions) == 0:
        raise ValueError("recall needs the instructions of earlier tasks, which the trainer sets")
    known, text = context.instructions, samples.inputs["text"]
    drawn = samples.rng.integers(len(known))
    rows = torch.arange(len(text)).repeat(2)
    inputs = rows_of(samples.inputs, rows)
    inputs["text"] = torch.cat([text, known[drawn].to(text)])
    return ShownSamples(inputs, samples.n_current, len(text), rows, samples.replay_ids, windows=samples.windows)
