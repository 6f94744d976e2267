"""Scripted experts: privileged state in, action out. `find_expert` knows which expert solves which suite."""

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_sim.experts.pick_place import PickAndPlace
from m2distill_sim.libero_env import LiberoEnv

EXPERTS = {"libero_object": PickAndPlace}


def find_expert(suite: str) -> type:
    """The class of the expert that solves `suite`; raises UserError."""
    if suite not in EXPERTS:
        raise UserError(f"no scripted expert for {suite} (there is one for: {', '.join(EXPERTS)}); "
                        f"use LIBERO's own demonstrations for this suite")
    return EXPERTS[suite]


def make_expert(env: LiberoEnv, rng: np.random.Generator):
    """An expert for the episode that `env` has just been reset to: `.act(env) -> action (7,)`, `.done`."""
    return find_expert(env.task.suite)(env, rng)
