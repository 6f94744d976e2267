"""Scripted experts: privileged state in, action out. The goal's predicates decide which skills a task needs.

articulated.py   skills: open a drawer, turn a knob
grasp.py         grasps of a hand that points down
lay.py           skill: lay a bottle down on a sloping shelf
motion.py        Expert, which turns a skill's intent into an action; transit heights and approach motions
noise.py         smooth variation, and the disturbances under which demonstrations are recorded
pick_place.py    skill: pick an object up and place it
push.py          skill: push a flat object over the table
scene.py         geometry of the scene: poses, bounding boxes, heights of obstacles
"""

import functools

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_policy.suites import EXPERT_SUITES as SUITES
from m2distill_sim.experts.articulated import OpenDrawer, TurnKnob
from m2distill_sim.experts.grasp import MAX_OBJECT_WIDTH, ChooseGrasp, Rim, middle_grasp, rim_grasp, top_grasp
from m2distill_sim.experts.lay import LayDown
from m2distill_sim.experts.motion import Expert, FloorTransit, Skill, Style, TableTransit, draw_style
from m2distill_sim.experts.pick_place import Basket, PickAndPlace, Surface
from m2distill_sim.experts.push import Push
from m2distill_sim.experts.scene import Scene
from m2distill_sim.libero_env import LiberoEnv

# Drawer positions in m above which it is released, and below which it is pulled again; LIBERO's is open at 0.14.
OPEN = (0.152, 0.143)
AJAR = (0.105, 0.080)  # for a drawer into which an object is placed: leaves space in front of the cabinet
FLOOR_STEPS, TABLE_STEPS = 220, 330  # step limits of an attempt, and of one skill of an attempt


def check_expert(suite: str) -> None:
    """Raise UserError if no expert solves the suite."""
    if suite not in SUITES:
        raise UserError(
            f"no scripted expert for {suite} (there is one for: {', '.join(SUITES)}); "
            f"use LIBERO's own demonstrations for this suite"
        )


def make_expert(env: LiberoEnv, rng: np.random.Generator) -> Expert:
    """Return an expert for the episode to which `env` has just been reset."""
    check_expert(env.task.suite)
    if env.task.suite == "libero_object":
        return Expert(env, rng, (_place_in_basket(env),), Style(), FLOOR_STEPS)
    style = draw_style(rng)
    skills = [skill for predicate in env.goal for skill in _skills(env, predicate, style)]
    return Expert(env, rng, tuple(skills), style, TABLE_STEPS * len(skills))


def _place_in_basket(env: LiberoEnv) -> PickAndPlace:
    grocery, basket = env.objects_of_interest
    others = [name for name in env.object_names if name not in (grocery, basket)]
    return PickAndPlace(
        grocery,
        Basket(basket),
        FloorTransit(Style()),
        lambda scene, name, target: middle_grasp(scene, name, 0.0, others),
    )


def _skills(env: LiberoEnv, predicate: tuple[str, ...], style: Style) -> list[Skill]:
    """Return the skills that make one predicate of the goal true."""
    scene = Scene(env)
    match predicate:
        case ("open", region):
            return [OpenDrawer(scene, region, OPEN, style)]
        case ("turnon", fixture):
            return [TurnKnob(scene, fixture, style)]
        case ("on", name, region) if scene.is_table_region(region):
            return [Push(scene, name, region, TableTransit(style))]
        case ("on", name, region) if scene.is_sloped_region(region):
            return [LayDown(scene, name, region, TableTransit(style))]
        case ("on" | "in", name, place):
            put = PickAndPlace(name, Surface(place), TableTransit(style), _choose_grasp(scene, name, style))
            return [OpenDrawer(scene, place, AJAR, style), put] if scene.is_drawer_region(place) else [put]
    raise UserError(f"no scripted expert for the goal {' '.join(predicate)} of {env.task.name}")


def _choose_grasp(scene: Scene, name: str, style: Style) -> ChooseGrasp:
    """Return rim grasps for an object that is too wide for the gripper, top grasps otherwise."""
    size = scene.bounds(name).high - scene.bounds(name).low
    if min(size[:2]) > MAX_OBJECT_WIDTH:
        return functools.partial(rim_grasp, rim=Rim(scene.corner_points(name)), style=style)
    return functools.partial(top_grasp, style=style)
