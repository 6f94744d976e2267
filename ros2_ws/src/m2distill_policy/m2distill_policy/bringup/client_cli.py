"""Command lines of `m2distill instruct` and `m2distill service`.

They do what `ros2 topic pub`, `ros2 service call` and `ros2 param set` do, for installations without `ros2`. Their ROS
clients are `ros/clients/instruct.py` and `ros/clients/service.py`.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from m2distill_policy.bringup.processes import environment
from m2distill_policy.errors import UserError


def instruct_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `instruct`; `instruction` is a list of words. Raises UserError."""
    parser = _parser(
        "instruct",
        "Send an instruction to a running policy node and print its status; without an instruction, print the status "
        "and the known instructions.",
    )
    parser.add_argument(
        "instruction", nargs="*", help="instruction in words, as in: pick up the milk and place it in the basket"
    )
    parser.add_argument("--stop", action="store_true", help="stop following any instruction")
    options = parser.parse_args(arguments)
    if options.stop and options.instruction:
        raise UserError("give an instruction or --stop, not both")
    return options


def service_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of `service`; `set` is a list of (name, value) texts. Raises UserError."""
    parser = _parser(
        "service",
        "Call services of running nodes one after the other and print their responses; without a service, list the "
        "available ones.",
    )
    parser.add_argument("services", nargs="*", help="names of services, as in: sim/reset recorder/start")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the first service's node, set before the calls, as in: task=1 driver=expert",
    )
    options = parser.parse_args(arguments)
    if options.set and not options.services:
        raise UserError("--set requires a service, as in: m2distill service sim/reset --set task=1")
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
    parser.add_argument(
        "--namespace", default="", type=lambda text: text.strip("/"), help="namespace of the nodes; empty: none"
    )
    return parser


def instruct(arguments: Sequence[str]) -> int:
    """Run `m2distill instruct`; return the exit status."""
    return _checked("instruct", instruct_arguments, arguments)


def service(arguments: Sequence[str]) -> int:
    """Run `m2distill service`; return the exit status."""
    return _checked("service", service_arguments, arguments)


def _checked(name: str, read: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> int:
    read(arguments)
    if importlib.util.find_spec("rclpy") is None:
        raise UserError(
            f"{name} requires ROS 2; run make setup, or source a distribution and ros2_ws/install/setup.bash"
        )
    return run(name, arguments)


def run(name: str, arguments: Sequence[str]) -> int:
    """Run the ROS client in a process of its own, as all commands do."""
    command = [sys.executable, "-m", f"m2distill_policy.ros.clients.{name}", *arguments]
    return subprocess.run(command, env={**os.environ, **environment()}, check=False).returncode
