"""Replay of a recorded motion: the nodes of `m2distill run`, with the motion in place of a checkpoint.

So the policy node's limits, holds and order of authority apply, and whatever ends an order ends the replay. No ROS
import here.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from m2distill_policy.bringup import system
from m2distill_policy.bringup.launch_config import SystemLaunchConfig
from m2distill_policy.bringup.preflight import check_dashboard
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.recording.motion import RecordedMotion, save_motion
from m2distill_policy.utils.argument_parser import Parser

# Options of `m2distill run` that a replay does not have: what it follows is the motion, and nothing is recorded.
WITHOUT = ("checkpoint", "dry_run", "sampling", "seed", "record", "operator", "follow_checkpoint", "autostart")


def add_options(parser: Parser) -> None:
    """Add the options of `m2distill run` that apply to a replay."""
    system.add_arguments(parser, WITHOUT)


def replay_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of the client. Raises UserError."""
    parser = Parser("m2distill replay")
    parser.add_argument("text", help="instruction that requests the motion")
    parser.add_argument("--namespace", default="", help="namespace of the nodes; empty: none")
    return parser.parse_args(arguments)


def run(motion: RecordedMotion, config: SystemLaunchConfig, log_dir: Path) -> int:
    """Start the nodes, replay the motion once, and end the nodes.

    Returns:
        0 if the arm has reached the end of the recording; 1 if a stop, a fault or an operator ended the replay before;
        2 if the policy node rejected it.

    Raises:
        UserError: A node cannot start, or ends by itself.
    """
    if config.dashboard:
        check_dashboard()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="m2distill-replay-") as folder:
        path = Path(folder) / "motion.safetensors"
        save_motion(path, motion)
        nodes = system.system_nodes(replace(config, checkpoint=str(path)))
        with NodeProcesses(nodes, log_dir) as running:
            command = [sys.executable, "-m", "m2distill_policy.ros.clients.replay", motion.text]
            client = subprocess.Popen([*command, "--namespace", config.namespace], env=running.environment)
            try:
                while client.poll() is None:
                    running.check()
                    time.sleep(0.1)
            finally:
                client.kill()
                client.wait()
            return client.returncode
