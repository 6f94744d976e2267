"""The command `m2distill replay`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Move the arm through a recorded episode once, in simulation or on a real arm, and end.

The policy node sends the recorded commands in place of a policy's, so all limits, holds and faults apply, and a stop, a
fault or an operator ends the replay. It is open loop: objects must be where they were, and a joint that is further from
the recording than the tolerance is a fault. In simulation the scene is that of the episode by default. The exit status
is 1 if the replay ended before the recording."""
EXAMPLES = (
    "m2distill replay data/demos/pick_up_the_milk_and_place_it_in_the_basket_demo.hdf5 --episode demo_3",
    "m2distill replay episodes --episode 20261127-101500-000001 --arm franka_servo",
)


def add_arguments(parser: Parser) -> None:
    from m2distill_policy.bringup import replay
    from m2distill_policy.recording.motion import DEFAULT_TOLERANCE_RAD

    parser.add_argument("set", type=Path, metavar="SET", help="HDF5 file, LeRobot dataset, bag or folder of bags")
    parser.add_argument("--episode", default="", help="name in the set, such as demo_0; default: the first one")
    parser.add_argument(
        "--tolerance-rad",
        type=float,
        default=DEFAULT_TOLERANCE_RAD,
        help="distance of a joint from the recording beyond which the replay is a fault",
    )
    replay.add_options(parser)
    parser.set_defaults(suite=None, task=None, initial_state=None)


def run(options: argparse.Namespace) -> int:
    from m2distill_policy.bringup import replay, system
    from m2distill_policy.bringup.parameters import SIMULATED_ARM
    from m2distill_policy.safety.arm_presets import resolve_arm
    from m2distill_training.data.motions import read_motion

    source = read_motion(options.set, options.episode, options.tolerance_rad)
    if resolve_arm(options.arm) == SIMULATED_ARM:
        from m2distill_training.experiments.replay_scene import choose_scene

        scene = choose_scene(source, options.suite, options.task, options.initial_state)
        options.suite, options.task, options.initial_state = scene
        print(f"scene: {scene.suite} task {scene.task}, initial state {scene.initial_state}", flush=True)
    print(f"{source.motion.text}: {len(source.motion.action)} steps", flush=True)
    status = replay.run(source.motion, *system.chosen_by(options))
    if status == 0:
        print(f"next: m2distill data show {options.set}")
    return status
