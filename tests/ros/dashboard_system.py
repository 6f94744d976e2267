"""A policy, a recorder and a dashboard as processes, with the sensors of a robot, for tests of the page."""

import socket
import threading
import time
from pathlib import Path

import numpy as np
from browser import Tab, wait_for
from geometry_msgs.msg import TwistStamped
from harness import KNOWN, Client

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.ros.common.conversions import twist_to_numpy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def dashboard_node(port: int, **parameters) -> NodeDescription:
    return NodeDescription("m2distill_policy", "dashboard_node", "dashboard", "", {"port": port, **parameters})


class System:
    """Policy, recorder and dashboard as processes, and a robot whose sensors a thread publishes."""

    def __init__(self, nodes: NodeProcesses, robot: Client, address: str, checkpoint: Path):
        self.nodes, self.robot, self.address, self.checkpoint = nodes, robot, address, checkpoint
        self.twists: list[tuple[float, bool]] = []  # time of arrival, and whether it moves
        robot.create_subscription(
            TwistStamped,
            "twist_cmd",
            lambda m: self.twists.append((time.time(), bool(np.any(np.concatenate(twist_to_numpy(m)))))),
            100,
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended.is_set():
            self.robot.spinner.spin_once(timeout_sec=0.05)
            del self.robot.received[:-200]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_state(self, state: int) -> None:
        wait_for(lambda: self.robot.status and self.robot.status.state == state, lambda: f"state {state}")

    def run(self) -> None:
        """Let the policy move the arm."""
        self.robot.instruct(KNOWN[1])
        self.wait_for_state(PolicyStatus.RUNNING)
        begun_s = time.time()
        wait_for(lambda: self.twists and self.twists[-1][1] and self.twists[-1][0] > begun_s, lambda: "motion")


def frames(tab: Tab) -> int:
    """Return the number of images that the page has drawn of each of the two cameras, at least."""
    counts = tab.js("[...document.querySelectorAll('canvas')].map((canvas) => Number(canvas.dataset.frames || 0))")
    return min(counts) if len(counts) == 2 else 0
