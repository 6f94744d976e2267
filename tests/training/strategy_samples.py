"""Samples, policies and strategies for the tests of losses and strategies."""

import copy
import dataclasses

import numpy as np
import torch

from m2distill_policy.models import Policy
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.config import AugmentConfig
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import DemoSubset
from m2distill_training.engine.batches import StageBatches
from m2distill_training.presets import debug
from m2distill_training.strategies import Samples, make_strategy
from m2distill_training.strategies.base import StageContext
from m2distill_training.strategies.configs import DistillConfig
from m2distill_training.strategies.m2distill import rows_of

SPEC = libero_spec(size_px=16, history=4, text_encoder="test", text_width=8)


CURRENT, REPLAYED = 3, 2


def make_samples() -> Samples:
    rng = np.random.default_rng(0)
    B, T = CURRENT + REPLAYED, SPEC.history
    images = {camera.name: rng.integers(0, 256, (B, T, 16, 16, 3), np.uint8) for camera in SPEC.cameras}
    inputs = to_model_input(
        images, *(rng.normal(size=shape).astype(np.float32) for shape in ((B, T, 7), (B, T, 2), (B, 8)))
    )
    return Samples(
        inputs,
        torch.from_numpy(rng.uniform(-1, 1, (B, T, 7)).astype(np.float32)),
        CURRENT,
        SampleRng.of_whole_batch(0, B),
    )


def make_policy(seed: int = 0, norm: str = "group") -> Policy:
    torch.manual_seed(seed)
    return Policy(dataclasses.replace(debug().model, norm=norm, dropout=0.0), SPEC)


def second_stage(libero_file) -> StageBatches:
    """Not augmented batches of a second stage: 4 current and 2 replayed samples."""
    config = dataclasses.replace(debug(), augment=AugmentConfig(color=0.0, color_probability=0.0, crop_pad_px=0))
    stores = [open_store(libero_file(name, instruction=name, seed=i), SPEC, "before") for i, name in enumerate("ab")]
    texts = torch.randn(2, SPEC.text_width, generator=torch.Generator().manual_seed(0)).numpy()
    old, new = (DemoSubset(store, text) for store, text in zip(stores, texts, strict=True))
    return StageBatches(config, 1, [new], [old], True, torch.device("cpu"))


INSTRUCTIONS = torch.arange(24.0).reshape(3, 8)  # of earlier tasks


def strategy_with(name: str = "m2distill", **distill):
    """A strategy with fixed weights in the unit of the tokens, unless `distill` sets others."""
    values = dataclasses.asdict(DistillConfig()) | {"on": "both"} | distill
    strategy = make_strategy(debug().with_strategy(name, **values))
    strategy.context = StageContext(INSTRUCTIONS, make_samples)
    return strategy


def strategy_named(name: str):
    return make_strategy(debug().with_strategy(name))


def ewc(weight: float = 3.0, decay: float = 0.5):
    return make_strategy(debug().with_strategy("ewc", weight=weight, decay=decay))


def epoch_of(*sizes: int) -> list[Samples]:
    """Batches of different numbers drawn from the same samples."""
    samples = make_samples()
    return [
        Samples(rows_of(samples.inputs, slice(0, n)), samples.action[:n], n, SampleRng.of_whole_batch(0, n))
        for n in sizes
    ]


def libero_fisher(policy: Policy, epoch: list[Samples]) -> dict[str, torch.Tensor]:
    """The mean over batches of the squared gradient of the mean log-likelihood, by .backward() as LIBERO has it."""
    policy = copy.deepcopy(policy).eval()
    squares = []
    for samples in epoch:
        policy.zero_grad()
        policy(samples.inputs).dist.log_prob(samples.action).mean().backward()
        squares.append({name: p.grad.square() for name, p in policy.named_parameters()})
    return {name: torch.stack([s[name] for s in squares]).mean(0) for name in squares[0]}


def learn(strategy, policy: Policy) -> None:
    """A step in miniature: two phases of three updates with an optimiser that moves every weight it may."""
    for phase in range(2):
        if phase == 1:
            strategy.begin_phase(policy)
        optimiser = torch.optim.AdamW(policy.parameters(), lr=0.1, weight_decay=0.5)
        for _ in range(3):
            optimiser.zero_grad()
            strategy.loss(policy, make_samples())["loss"].backward()
            strategy.update(policy, optimiser)
    strategy.end_task(policy, [])
