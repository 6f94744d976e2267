"""The command `m2distill tell`: `ros2 topic pub` for installations without `ros2`."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence

from m2distill_policy.bringup import environment
from m2distill_policy.errors import UserError


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Its `instruction` is a list of words. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="m2distill tell", formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Tell a running policy node what to do; without an instruction: ask what it is doing, and what it "
                    "could.")
    parser.add_argument("instruction", nargs="*", help="in words, as in: pick up the milk and place it in the basket")
    parser.add_argument("--stop", action="store_true", help="stand still")
    parser.add_argument("--namespace", default="", help="of the nodes; empty: none")
    options = parser.parse_args(arguments)
    if options.stop and options.instruction:
        raise UserError("give an instruction or --stop, not both")
    return options


def main(arguments: Sequence[str]) -> int:
    read_arguments(arguments)
    if importlib.util.find_spec("rclpy") is None:
        raise UserError("tell needs ROS 2; run make setup, or source a distribution and ros2_ws/install/setup.bash")
    return run(arguments)


def run(arguments: Sequence[str]) -> int:
    """In a process of its own, like every use of ROS by a command."""
    command = [sys.executable, "-m", "m2distill_policy.ros.tell", *arguments]
    return subprocess.run(command, env={**os.environ, **environment()}, check=False).returncode
