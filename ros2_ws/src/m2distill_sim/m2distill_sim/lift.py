"""Names, assets and initial states of robosuite's Lift task. Nothing here needs a simulator.

LIBERO does not have this task, and the wheel of robosuite contains human demonstrations of it.
"""

import functools
import importlib.util
from importlib.metadata import version
from pathlib import Path

import numpy as np

from m2distill_policy.errors import AssetError
from m2distill_policy.suites import ROBOSUITE
from m2distill_sim.assets import AssetSource

SUITE = ROBOSUITE
NAME = "lift"
INSTRUCTION = "lift the red cube"
STATES = 50  # as in LIBERO's tasks

# robosuite 1.4.0: models/robots/manipulators/panda_robot.py, models/grippers/panda_gripper.py (init_qpos), and
# environments/manipulation/lift.py (the cube's placement on a table 0.8 m high)
ARM_RAD = (0, np.pi / 16, 0, -np.pi / 2 - np.pi / 3, 0, np.pi - 0.2, np.pi / 4)
ARM_JITTER_RAD = 0.02
FINGERS_M = (0.020833, -0.020833)
CUBE_HALF_M = 0.021  # mean of the sizes that robosuite draws
CUBE_SPREAD_M = 0.03  # of x and y, to either side of the table's centre
CUBE_Z_M = 0.8 + CUBE_HALF_M + 0.01  # the cube falls the last centimetre


def assets() -> AssetSource:
    """Return the assets in the package robosuite, which include the demonstrations. Raises AssetError."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or spec.origin is None:
        raise AssetError("the package `robosuite` is not installed; run `make setup`, or pip install robosuite")
    folder = Path(spec.origin).parent / "models" / "assets"
    return AssetSource("installed", folder, f"robosuite-{version('robosuite')}-plain")


@functools.cache
def initial_states() -> np.ndarray:
    """Return the initial states (50, 32) float64, [time, qpos, qvel].

    They are drawn once with robosuite's distribution, as are the starts of the packaged demonstrations. No packaged
    demonstration starts from one of them.
    """
    rng = np.random.default_rng(20221116)
    states = np.zeros((STATES, 32))
    for state in states:
        turn = rng.uniform(0, 2 * np.pi)
        cube = (*rng.uniform(-CUBE_SPREAD_M, CUBE_SPREAD_M, 2), CUBE_Z_M, np.cos(turn / 2), 0, 0, np.sin(turn / 2))
        state[1:17] = (*(ARM_RAD + rng.normal(0, ARM_JITTER_RAD, 7)), *FINGERS_M, *cube)
    states.flags.writeable = False
    return states
