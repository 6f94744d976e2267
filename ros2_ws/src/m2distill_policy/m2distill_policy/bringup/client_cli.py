"""The commands `m2distill instruct` and `m2distill service`.

They do what `ros2 topic pub`, `ros2 service call` and `ros2 param set` do, for installations without `ros2`. Their
nodes are in ros/clients/.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from m2distill_policy.bringup.preflight import check_texts, missing_rmw
from m2distill_policy.bringup.processes import environment
from m2distill_policy.errors import UserError
from m2distill_policy.utils.argument_parser import Parser

INSTRUCT = """Send an instruction to a running policy and print its status; without an instruction, print the status and
the instructions that the policy knows."""
SERVICE = """Call services of running nodes, one after the other without delay, and print their responses; without a
name, list the services that can be called."""


def add_instruct_arguments(parser: Parser) -> None:
    parser.add_argument(
        "instruction", nargs="*", help="in words, for example: pick up the milk and place it in the basket"
    )
    parser.add_argument(
        "--stop",
        action="store_true",
        help="stop every policy of the domain, or of the namespace, and verify that nothing moves",
    )
    _add_namespace(parser)


def add_service_arguments(parser: Parser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="for example: sim/reset recorder/start")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the first service's node, set before the call, for example: task=1 driver=expert",
    )
    _add_namespace(parser)


def _add_namespace(parser: Parser) -> None:
    parser.add_argument(
        "--namespace", default="", type=lambda text: text.strip("/"), help="namespace of the nodes; empty: none"
    )


def instruct_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; its `instruction` is a list of words. Raises UserError."""
    parser = Parser("m2distill instruct", INSTRUCT)
    add_instruct_arguments(parser)
    options = parser.parse_args(arguments)
    if options.stop and options.instruction:
        raise UserError("give an instruction or --stop, not both")
    return options


def service_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; its `services` are names, its `set` is a list of (name, value) texts. Raises UserError."""
    parser = Parser("m2distill service", SERVICE)
    add_service_arguments(parser)
    options = parser.parse_args(arguments)
    if options.set and not options.services:
        raise UserError("--set requires a service, for example: m2distill service sim/reset --set task=1")
    options.set = [_setting(text) for text in options.set]
    return options


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UserError(f"--set {text!r}, expected NAME=VALUE, for example task=1")
    return name, value


def instruct(arguments: Sequence[str]) -> int:
    """Run the client for `m2distill instruct`; returns the exit status. Raises UserError."""
    return _checked("instruct", instruct_arguments, arguments)


def service(arguments: Sequence[str]) -> int:
    """Run the client for `m2distill service`; returns the exit status. Raises UserError."""
    return _checked("service", service_arguments, arguments)


def _checked(name: str, read: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> int:
    read(arguments)
    if importlib.util.find_spec("rclpy") is None:
        raise UserError(
            f"{name} requires ROS 2; run make setup, or source a distribution and ros2_ws/install/setup.bash"
        )
    return run(name, arguments)


def run(name: str, arguments: Sequence[str]) -> int:
    """Start the client in a process of its own, like every use of ROS by a command; returns its exit status.

    Raises:
        UserError: A word is no text, or the middleware is missing.
    """
    check_texts(arguments)
    command = [sys.executable, "-m", f"m2distill_policy.ros.clients.{name}", *arguments]
    status = subprocess.run(command, env={**os.environ, **environment()}, check=False).returncode
    if problem := missing_rmw(status):
        raise UserError(problem)
    return status
