"""Scripted experts: privileged state in, action out.

    scene.py         what an expert knows: where things are, how far and how high they reach
    motion.py        skills in sequence to actions; travelling and reaching
    grasp.py         where a hand takes hold of a thing
    pick_place.py    the skill of moving a thing
    noise.py         variation, and the disturbances under which demonstrations are recorded

The goal's predicates decide which skills a task needs, one after the other.
"""

import functools

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_sim.experts.articulated import Pull, Turn
from m2distill_sim.experts.grasp import WIDEST, Rim, middle_grasp, rim_grasp, top_grasp
from m2distill_sim.experts.lay import Lay
from m2distill_sim.experts.motion import Expert, FloorTravel, Skill, Style, TableTravel, draw_style
from m2distill_sim.experts.pick_place import Basket, PickAndPlace, Surface
from m2distill_sim.experts.push import Push
from m2distill_sim.experts.scene import Scene
from m2distill_sim.libero_env import LiberoEnv

OPEN = (0.152, 0.143)  # m at which a drawer is let go, and below which it is pulled again; LIBERO's is open at 0.14
AJAR = (0.105, 0.080)  # the same for something to be put in, with room left in front of the cabinet
FLOOR_STEPS, TABLE_STEPS = 220, 330  # of an attempt, and of one skill of an attempt
SUITES = ("libero_object", "libero_goal", "libero_spatial")


def check_expert(suite: str) -> None:
    """Raises UserError where no expert solves the suite."""
    if suite not in SUITES:
        raise UserError(
            f"no scripted expert for {suite} (there is one for: {', '.join(SUITES)}); "
            f"use LIBERO's own demonstrations for this suite"
        )


def make_expert(env: LiberoEnv, rng: np.random.Generator) -> Expert:
    """An expert for the episode that `env` has just been reset to: `.act(env) -> action (7,)`, `.done`."""
    check_expert(env.task.suite)
    if env.task.suite == "libero_object":
        return Expert(env, rng, (_to_the_basket(env),), Style(), FLOOR_STEPS)
    style = draw_style(rng)
    skills = [skill for predicate in env.goal for skill in _skills(env, predicate, style)]
    return Expert(env, rng, tuple(skills), style, TABLE_STEPS * len(skills))


def _to_the_basket(env: LiberoEnv) -> PickAndPlace:
    thing, basket = env.objects_of_interest
    others = [name for name in env.object_names if name not in (thing, basket)]
    return PickAndPlace(
        thing, Basket(basket), FloorTravel(Style()), lambda scene, name, spot: middle_grasp(scene, name, 0.0, others)
    )


def _skills(env: LiberoEnv, predicate: tuple[str, ...], style: Style) -> list[Skill]:
    """What makes one predicate of the goal true."""
    scene = Scene(env)
    match predicate:
        case ("open", region):
            return [Pull(scene, region, OPEN, style)]
        case ("turnon", fixture):
            return [Turn(scene, fixture, style)]
        case ("on", thing, region) if scene.lies_on_table(region):
            return [Push(scene, thing, region, TableTravel(style))]
        case ("on", thing, region) if scene.slopes(region):
            return [Lay(scene, thing, region, TableTravel(style))]
        case ("on" | "in", thing, place):
            put = PickAndPlace(thing, Surface(place), TableTravel(style), _grasp_of(scene, thing, style))
            return [Pull(scene, place, AJAR, style), put] if scene.slides(place) else [put]
    raise UserError(f"no scripted expert for the goal {' '.join(predicate)} of {env.task.name}")


def _grasp_of(scene: Scene, name: str, style: Style):
    size = scene.extent(name).high - scene.extent(name).low
    if min(size[:2]) > WIDEST:
        return functools.partial(rim_grasp, rim=Rim(scene.outline(name)), style=style)
    return functools.partial(top_grasp, style=style)
