"""robosuite's own Lift task, which LIBERO does not have and of which robosuite's wheel packs human demonstrations.

This module knows what needs no simulator: the task's names, its assets and its initial states.
"""

import functools
import importlib.util
from importlib.metadata import version
from pathlib import Path

import numpy as np

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import AssetSource

SUITE = "robosuite"
NAME = "lift"
INSTRUCTION = "lift the red cube"
STATES = 50  # as many as a task of LIBERO has

# robosuite 1.4.0: models/robots/manipulators/panda_robot.py, models/grippers/panda_gripper.py (init_qpos), and
# environments/manipulation/lift.py (the cube's placement on a table 0.8 m high)
ARM_RAD = (0, np.pi / 16, 0, -np.pi / 2 - np.pi / 3, 0, np.pi - 0.2, np.pi / 4)
ARM_JITTER_RAD = 0.02
FINGERS_M = (0.020833, -0.020833)
CUBE_HALF_M = 0.021  # the middle of what robosuite draws
CUBE_SPREAD_M = 0.03  # of x and y to either side of the table's middle
CUBE_Z_M = 0.8 + CUBE_HALF_M + 0.01  # it falls the last centimetre


def assets() -> AssetSource:
    """robosuite brings its own, the packaged demonstrations among them."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or spec.origin is None:
        raise AssetError("the package `robosuite` is not installed; run `make setup`, or pip install robosuite")
    folder = Path(spec.origin).parent / "models" / "assets"
    return AssetSource("installed", folder, f"robosuite-{version('robosuite')}-plain")


@functools.cache
def initial_states() -> np.ndarray:
    """(50, 32) float64, [time, qpos, qvel]: drawn once by robosuite's rule, which the packaged demonstrations began
    with as well. None of them is one of these."""
    rng = np.random.default_rng(20221116)
    states = np.zeros((STATES, 32))
    for state in states:
        turn = rng.uniform(0, 2 * np.pi)
        cube = (*rng.uniform(-CUBE_SPREAD_M, CUBE_SPREAD_M, 2), CUBE_Z_M, np.cos(turn / 2), 0, 0, np.sin(turn / 2))
        state[1:17] = (*(ARM_RAD + rng.normal(0, ARM_JITTER_RAD, 7)), *FINGERS_M, *cube)
    states.flags.writeable = False
    return states
