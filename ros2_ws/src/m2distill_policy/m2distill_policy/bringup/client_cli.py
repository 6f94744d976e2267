"""The commands `m2distill instruct` and `m2distill service`: what `ros2 topic pub`, `ros2 service call` and `ros2 param set`
do, for installations without `ros2`. The nodes behind them are ros/tell.py and ros/call.py."""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from m2distill_policy.bringup.system import environment
from m2distill_policy.errors import UserError


def instruct_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Its `instruction` is a list of words. Raises UserError."""
    parser = _parser(
        "instruct",
        "Tell a running policy node what to do; without an instruction: ask what it is doing, and what it could.",
    )
    parser.add_argument("instruction", nargs="*", help="in words, as in: pick up the milk and place it in the basket")
    parser.add_argument("--stop", action="store_true", help="stand still")
    options = parser.parse_args(arguments)
    if options.stop and options.instruction:
        raise UserError("give an instruction or --stop, not both")
    return options


def service_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Its `services` are names, its `set` is a list of (name, value) of texts. Raises UserError."""
    parser = _parser(
        "service",
        "Call services of running nodes, one after the other without delay, and print what they "
        "answer; without one: list those that can be called.",
    )
    parser.add_argument("services", nargs="*", help="as in: sim/reset recorder/start")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the first service's node, set before, as in: task=1 operator=expert",
    )
    options = parser.parse_args(arguments)
    if options.set and not options.services:
        raise UserError("--set needs a service, as in: m2distill service sim/reset --set task=1")
    options.set = [_setting(text) for text in options.set]
    return options


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UserError(f"--set {text!r}, expected NAME=VALUE, as in task=1")
    return name, value


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"m2distill {name}", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--namespace", default="", type=lambda text: text.strip("/"), help="of the nodes; empty: none")
    return parser


def instruct(arguments: Sequence[str]) -> int:
    return _checked("instruct", instruct_arguments, arguments)


def service(arguments: Sequence[str]) -> int:
    return _checked("service", service_arguments, arguments)


def _checked(name: str, read: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> int:
    read(arguments)
    if importlib.util.find_spec("rclpy") is None:
        raise UserError(f"{name} needs ROS 2; run make setup, or source a distribution and ros2_ws/install/setup.bash")
    return run(name, arguments)


def run(name: str, arguments: Sequence[str]) -> int:
    """In a process of its own, like every use of ROS by a command."""
    command = [sys.executable, "-m", f"m2distill_policy.ros.clients.{name}", *arguments]
    return subprocess.run(command, env={**os.environ, **environment()}, check=False).returncode
