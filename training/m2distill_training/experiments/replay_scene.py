"""The simulated scene in which an episode was recorded, for its replay."""

from typing import NamedTuple

import numpy as np

from m2distill_policy.bringup.parameters import SimParameters
from m2distill_policy.suites import BUILTIN_SUITES
from m2distill_sim.suites import find_task, initial_states
from m2distill_training.data.motions import MotionSource
from m2distill_training.evaluation.run_specs import find_tasks

DEFAULTS = SimParameters()


class Scene(NamedTuple):
    """Parameters of the simulator."""

    suite: str
    task: int
    initial_state: int


def choose_scene(source: MotionSource, suite: str | None, task: int | None, initial_state: int | None) -> Scene:
    """Return the scene of an episode; what is given takes precedence.

    The task is the one that the set names, or that of its instruction. The initial state is the one that is nearest to
    the recorded state of the simulator, if the set has it.

    Raises:
        UserError: The task is unknown, or its instruction is that of several tasks.
    """
    if task is not None:
        found = find_task(suite or DEFAULTS.suite, task)
    else:
        names = [source.task] if source.task and suite in (None, source.task.partition("/")[0]) else []
        (found, *_) = find_tasks((suite,) if suite else BUILTIN_SUITES, [source.instruction], names)
    if initial_state is None:
        initial_state = DEFAULTS.initial_state
        states = initial_states(found.suite, found.index)
        if source.start is not None and source.start.shape == states[0].shape:
            initial_state = int(np.argmin(np.linalg.norm(states - source.start, axis=1)))
    return Scene(found.suite, found.index, initial_state)
