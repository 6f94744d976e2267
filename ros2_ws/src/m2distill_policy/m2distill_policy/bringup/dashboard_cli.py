"""The command `m2distill dashboard`: it starts the node `dashboard` in a process of its own."""

import argparse
import importlib.util
import os
import signal
import subprocess
from dataclasses import fields

from m2distill_policy.bringup.launch_config import read_option
from m2distill_policy.bringup.parameters import DashboardParameters
from m2distill_policy.bringup.preflight import check_dashboard, check_ros_variables, check_texts, missing_rmw
from m2distill_policy.bringup.processes import STARTER_PID, NodeDescription, command_line, environment
from m2distill_policy.errors import UserError
from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Start a web page that shows a running policy, its cameras and its recorder, and sends orders to them,
until Ctrl-C.

It starts no policy and publishes no command. Its end has no effect on the other nodes; the exit status is then 130."""
END_LIMIT_S = 10.0


def add_arguments(parser: Parser) -> None:
    """Add an option for each parameter of the node, and --namespace."""
    for option in fields(DashboardParameters):
        text = option.metadata["description"].replace("%", "%%")
        kind = {str: str, int: int, float: float}[type(option.default)]
        name = "--" + option.name.replace("_", "-")
        parser.add_argument(name, dest=option.name, type=kind, default=option.default, help=text)
    parser.add_argument(
        "--namespace", default="", type=lambda text: text.strip("/"), help="namespace of the nodes; empty: none"
    )


def run(options: argparse.Namespace) -> int:
    """Run the node until it ends; return its exit status. Raises UserError."""
    check_dashboard()
    if importlib.util.find_spec("rclpy") is None:
        raise UserError(
            "dashboard requires ROS 2; run make setup, or source a distribution and ros2_ws/install/setup.bash"
        )
    chosen = {}
    for option in fields(DashboardParameters):
        value = getattr(options, option.name)
        low, high = option.metadata["bounds"]
        if low is not None and not low <= value <= high:
            raise UserError(f"{option.name} is {value:g}, allowed: {low:g} to {high:g}")
        chosen[option.name] = read_option(option, value) if option.type is str else value
    node = NodeDescription("m2distill_policy", "dashboard_node", "dashboard", options.namespace, chosen)
    command = command_line(node)
    check_texts(command)
    variables = {**os.environ, **environment(), STARTER_PID: str(os.getpid())}
    check_ros_variables(variables)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(command, env=variables)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait(END_LIMIT_S)
        raise
    if problem := missing_rmw(status):
        raise UserError(problem)
    return status
