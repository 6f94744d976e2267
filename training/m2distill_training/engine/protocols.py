"""Which tasks are learned when, and from how many demos.

| protocol    | steps                                        | demos per task          | kept per earlier task |
|-------------|----------------------------------------------|-------------------------|-----------------------|
| ten_steps   | 10 tasks one after the other                 | 50                      | as in the preset      |
| base6_plus4 | 6 tasks jointly, then 4 one after the other  | 50, then 10             | 5                     |
| custom      | one task per step, or `protocol.step_tasks`  | all, or `protocol.step_demos` | as in the preset |

ten_steps is LIBERO's own; LOTUS, M2Distill and later papers table base6_plus4. Tasks come in the order of the files
given, or in that of one of LIBERO's suites.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.errors import unknown_name
from m2distill_training.config import ConfigError, ProtocolConfig, TrainConfig
from m2distill_training.data.replay import choose_demos, random_order
from m2distill_training.strategies import find_strategy

TEN_STEPS = ProtocolConfig(name="ten_steps", step_tasks=(1,) * 10, step_demos=(50,))
BASE6_PLUS4 = ProtocolConfig(name="base6_plus4", step_tasks=(6, 1, 1, 1, 1), step_demos=(50, 10, 10, 10, 10))
BASE6_PLUS4_KEPT = 5  # demos of every earlier task

PROTOCOLS = {
    "custom": lambda config: config,
    "ten_steps": lambda config: dataclasses.replace(config, protocol=TEN_STEPS),
    "base6_plus4": lambda config: dataclasses.replace(
        config, protocol=BASE6_PLUS4, replay=dataclasses.replace(config.replay, demos_per_task=BASE6_PLUS4_KEPT)
    ),
}


def with_protocol(config: TrainConfig, name: str) -> TrainConfig:
    """`config` with the values that the protocol prescribes. Raises ConfigError for an unknown name."""
    if name not in PROTOCOLS:
        raise ConfigError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name](config)


@dataclass(frozen=True)
class TaskSplit:
    """One task of a step."""

    task: int  # its place in the order of learning
    demos: tuple[int, ...]  # those learned, ascending
    held_out: tuple[int, ...]  # those that no step learns


def plan(config: TrainConfig, files: Sequence[Path], n_demos: Sequence[int]) -> list[list[TaskSplit]]:
    """The lessons of every step, for files of `n_demos` demos each. `multitask` learns them all in one step. Raises
    ConfigError when there are not the tasks or the demos that the protocol asks for."""
    protocol = config.protocol
    step_tasks = protocol.step_tasks or (1,) * len(files)
    if sum(step_tasks) != len(files):
        raise ConfigError(
            f"protocol {protocol.name} learns {sum(step_tasks)} tasks in steps of {list(step_tasks)}, "
            f"got {len(files)} datasets; give one file per task, or change protocol.step_tasks"
        )
    step_demos = protocol.step_demos
    if len(step_demos) > 1 and len(step_demos) != len(step_tasks):
        raise ConfigError(
            f"protocol.step_demos has {len(step_demos)} numbers for {len(step_tasks)} steps; "
            "give one per step, or one for all"
        )
    steps: list[list[TaskSplit]] = []
    for k, n_tasks in enumerate(step_tasks):
        first = sum(step_tasks[:k])
        steps.append([])
        for task in range(first, first + n_tasks):
            kept_back = config.replay.held_out_demos
            wanted = step_demos[k if len(step_demos) > 1 else 0] if step_demos else max(1, n_demos[task] - kept_back)
            if n_demos[task] < wanted + kept_back:
                raise ConfigError(
                    f"{files[task]} holds {n_demos[task]} demos, step {k} of protocol {protocol.name} "
                    f"learns {wanted} of each task and holds out {kept_back}; collect more, or lower "
                    "protocol.step_demos or replay.held_out_demos"
                )
            steps[-1].append(lesson(task, n_demos[task], wanted, kept_back, config.seed))
    return [[lesson for step in steps for lesson in step]] if find_strategy(config.strategy).joint else steps


def lesson(task: int, n_demos: int, learned: int, held_out: int, seed: int) -> TaskSplit:
    """`learned` demos from the beginning of the task's random order, `held_out` from its end."""
    order = random_order(n_demos, seed, task)
    return TaskSplit(task, choose_demos(n_demos, learned, seed, task), tuple(order[n_demos - held_out :]))
