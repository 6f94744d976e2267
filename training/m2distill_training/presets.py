"""Presets: functions returning a complete TrainConfig."""

import dataclasses
from typing import Any

from m2distill_policy.errors import unknown_name
from m2distill_policy.models import config as models
from m2distill_training.config import (
    AugmentConfig,
    ConfigError,
    OptimConfig,
    ProtocolConfig,
    ReplayConfig,
    TrainConfig,
)
from m2distill_training.strategies.registry import config_values

_CUSTOM = ProtocolConfig(name="custom", stage_tasks=(), stage_demos=())


def libero() -> TrainConfig:
    """Return LIBERO's network and training defaults.

    They are those of its configs/train/default.yaml, configs/policy/* and the replay of configs/lifelong/er.yaml. The
    weights of the distillation terms are ours, because the paper does not publish them.
    """
    return TrainConfig(
        preset="libero",
        strategy="m2distill",
        seed=10000,
        text_encoder="bert-base-cased",
        image_px=128,
        history=10,
        pairing="as_stored",
        precision="auto",
        log_every=20,
        save_every=500,
        curve_points=0,
        model=models.libero(),
        optim=OptimConfig(
            batch_size=32,
            accumulate=1,
            budget=50,
            budget_unit="epochs",
            lr=1e-4,
            min_lr=1e-5,
            warmup_steps=0,
            weight_decay=1e-4,
            beta1=0.9,
            beta2=0.999,
            grad_clip=100.0,
            ema_decay=0.0,
        ),
        augment=AugmentConfig(color=0.3, color_probability=0.9, crop_pad_px=4),
        protocol=_CUSTOM,
        replay=ReplayConfig(demos_per_task=5, total_demos=0, batch_size=32, held_out_demos=0),
        strategy_config=config_values("m2distill", "libero"),
    )


def small() -> TrainConfig:
    """Return settings that two CPU cores train in minutes, from scripted demos at 64 px.

    The short history is fast, and the experts act on what is visible at present.
    """
    return TrainConfig(
        preset="small",
        strategy="m2distill",
        seed=0,
        text_encoder="auto",
        image_px=64,
        history=3,
        pairing="before",
        precision="auto",
        log_every=20,
        save_every=500,
        curve_points=0,
        model=models.small(),
        optim=OptimConfig(
            batch_size=24,
            accumulate=1,
            budget=3000,
            budget_unit="steps",
            lr=7e-4,
            min_lr=2e-5,
            warmup_steps=50,
            weight_decay=1e-4,
            beta1=0.9,
            beta2=0.999,
            grad_clip=10.0,
            ema_decay=0.99,
        ),
        augment=AugmentConfig(color=0.0, color_probability=0.0, crop_pad_px=0),
        protocol=_CUSTOM,
        replay=ReplayConfig(demos_per_task=10, total_demos=0, batch_size=24, held_out_demos=0),
        strategy_config=config_values("m2distill", "small"),
    )


def debug() -> TrainConfig:
    """Return settings that train and resume within seconds; the policy is not usable."""
    base = small()
    model = dataclasses.replace(
        base.model,
        stem_width=8,
        stages=(models.ResNetStage(8, 1, 2),),
        keypoints=4,
        width=16,
        layers=1,
        heads=2,
        head_width=8,
        mlp_width=16,
        mixture_hidden=16,
        modes=2,
    )
    return dataclasses.replace(
        base,
        preset="debug",
        image_px=16,
        history=4,
        precision="float32",
        log_every=1,
        save_every=4,
        model=model,
        optim=dataclasses.replace(base.optim, batch_size=4, budget=8, warmup_steps=2),
        augment=AugmentConfig(color=0.3, color_probability=0.9, crop_pad_px=1),
        replay=ReplayConfig(demos_per_task=1, total_demos=0, batch_size=2, held_out_demos=0),
        strategy_config=config_values("m2distill", "debug"),
    )


PRESETS = {"libero": libero, "small": small, "debug": debug}


def preset(name: str, strategy: str = "m2distill", **values: Any) -> TrainConfig:
    """Return a preset with another strategy, and with some of the strategy's hyper-parameters. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]().with_strategy(strategy, **values)
