"""Protocols: which tasks each stage learns, and from how many demos.

| protocol    | stages                                       | demos per task          | kept per earlier task |
|-------------|----------------------------------------------|-------------------------|-----------------------|
| ten_steps   | 10 tasks one after the other                 | 50                      | as in the preset      |
| base6_plus4 | 6 tasks jointly, then 4 one after the other  | 50, then 10             | 5                     |
| custom      | one task each, or `protocol.stage_tasks`     | all, or `protocol.stage_demos` | as in the preset |

ten_steps is LIBERO's own protocol; LOTUS, M2Distill and later papers report base6_plus4. Tasks come in the order of the
given files, or in the order of one of LIBERO's suites.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.errors import unknown_name
from m2distill_training.config import ConfigError, ProtocolConfig, TrainConfig
from m2distill_training.data.replay import choose_demos, random_order
from m2distill_training.strategies import find_strategy

TEN_STEPS = ProtocolConfig(name="ten_steps", stage_tasks=(1,) * 10, stage_demos=(50,))
BASE6_PLUS4 = ProtocolConfig(name="base6_plus4", stage_tasks=(6, 1, 1, 1, 1), stage_demos=(50, 10, 10, 10, 10))
BASE6_PLUS4_KEPT = 5  # demos of every earlier task

PROTOCOLS = {
    "custom": lambda config: config,
    "ten_steps": lambda config: dataclasses.replace(config, protocol=TEN_STEPS),
    "base6_plus4": lambda config: dataclasses.replace(
        config, protocol=BASE6_PLUS4, replay=dataclasses.replace(config.replay, demos_per_task=BASE6_PLUS4_KEPT)
    ),
}


def with_protocol(config: TrainConfig, name: str) -> TrainConfig:
    """Return `config` with the values that the protocol prescribes. Raises ConfigError for an unknown name."""
    if name not in PROTOCOLS:
        raise ConfigError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name](config)


@dataclass(frozen=True)
class TaskSplit:
    """Demos of one task: those that its stage learns, and those held out."""

    task: int  # its place in the order of learning
    demos: tuple[int, ...]  # learned, ascending
    held_out: tuple[int, ...]  # learned by no stage


def plan(config: TrainConfig, files: Sequence[Path], n_demos: Sequence[int]) -> list[list[TaskSplit]]:
    """Return the task splits of every stage.

    A joint strategy (multitask) learns all of them in one stage.

    Args:
        config: its protocol, seed and number of held-out demos.
        files: one dataset per task, in the order of learning.
        n_demos: number of demos in each of them.

    Raises:
        ConfigError: the tasks or the demos do not suffice for the protocol.
    """
    protocol = config.protocol
    stage_tasks = protocol.stage_tasks or (1,) * len(files)
    if sum(stage_tasks) != len(files):
        raise ConfigError(
            f"protocol {protocol.name} learns {sum(stage_tasks)} tasks in stages of {list(stage_tasks)}, "
            f"got {len(files)} datasets; give one file per task, or change protocol.stage_tasks"
        )
    stage_demos = protocol.stage_demos
    if len(stage_demos) > 1 and len(stage_demos) != len(stage_tasks):
        raise ConfigError(
            f"protocol.stage_demos has {len(stage_demos)} numbers for {len(stage_tasks)} stages; "
            "give one per stage, or one for all"
        )
    held_out = config.replay.held_out_demos
    stages: list[list[TaskSplit]] = []
    for i, n_tasks in enumerate(stage_tasks):
        first = sum(stage_tasks[:i])
        stages.append([])
        for task in range(first, first + n_tasks):
            learned = stage_demos[i if len(stage_demos) > 1 else 0] if stage_demos else max(1, n_demos[task] - held_out)
            if n_demos[task] < learned + held_out:
                raise ConfigError(
                    f"{files[task]} holds {n_demos[task]} demos, stage {i + 1} of protocol {protocol.name} "
                    f"learns {learned} of each task and holds out {held_out}; collect more, or lower "
                    "protocol.stage_demos or replay.held_out_demos"
                )
            stages[-1].append(split_task(task, n_demos[task], learned, held_out, config.seed))
    return [[split for stage in stages for split in stage]] if find_strategy(config.strategy).joint else stages


def split_task(task: int, n_demos: int, learned: int, held_out: int, seed: int) -> TaskSplit:
    """Return `learned` demos from the beginning of the task's random order and `held_out` from its end."""
    order = random_order(n_demos, seed, task)
    return TaskSplit(task, choose_demos(n_demos, learned, seed, task), tuple(order[n_demos - held_out :]))
