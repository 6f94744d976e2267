"""Node `dashboard`: a web page that shows cameras, policy and recorder, and sends orders to them. docs/dashboard.md.

It publishes no command. Its end has no effect on the other nodes.
"""

import asyncio
import sys
import time

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from m2distill_policy.bringup.parameters import DashboardParameters
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import parameters
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.ros.dashboard.access import access_rules
from m2distill_policy.ros.dashboard.cameras import CameraThread
from m2distill_policy.ros.dashboard.episodes import EpisodeFolder
from m2distill_policy.ros.dashboard.jobs import JOBS, JobRunner
from m2distill_policy.ros.dashboard.robot import MOVING_STATES, ORDERS, Robot
from m2distill_policy.ros.dashboard.server import Backend, Server
from m2distill_policy.ros.dashboard.simulator import Simulator
from m2distill_policy.ros.dashboard.stop_thread import StopThread
from m2distill_policy.utils.parameters import expanded

GRAPH_PERIOD_S = 0.5
UNWATCHED_S = 5.0  # after which the cameras are no longer subscribed to
SCAN_PERIOD_S = 2.0
RECORDER_ORDERS = ("keep", "discard")


class DashboardNode(Node):
    """Parts of the dashboard, connected."""

    def __init__(self):
        super().__init__("dashboard")
        parameters.declare(self, DashboardParameters)
        self._settings = parameters.read(self, DashboardParameters)
        self._stop = StopThread(self.get_namespace(), self._on_stop)
        self._robot = Robot(self, lambda: self._stop.is_stopping)
        self._cameras = CameraThread(self, self._settings.image_rate_hz, self._settings.image_width_px, self._show)
        self._simulator = Simulator(self, self._robot.answer)
        self._episodes = EpisodeFolder(self._path("episodes"))
        self._jobs = JobRunner(self._path("run"), self._episodes, self._is_moving)
        self._target = self._settings.target_episodes
        self._server: Server | None = None
        self._watched_s = -UNWATCHED_S
        self._scanned_s = -SCAN_PERIOD_S
        self._scan: asyncio.Future | None = None
        self.create_timer(GRAPH_PERIOD_S, self._look_around, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def start(self) -> None:
        """Open the page to browsers. Raises UserError if it must not or cannot be opened."""
        settings = self._settings
        token_file = self._path("token_file")
        access = access_rules(settings.host, settings.origin, token_file)
        backend = Backend(
            self._sections, self._order, self._press, self._episodes.film, self._jobs.review, self._jobs.end
        )
        self._server = Server(backend, access, settings.host, settings.port)
        for part in (self._stop, self._cameras, self._server):
            part.start()
        address = (access.origins or (f"http://{settings.host}:{self._server.port}",))[0]
        self.get_logger().info(f"dashboard: {address}/" + (f"; its token is in {token_file}" if access.token else ""))

    def close(self) -> None:
        """End all threads."""
        for part in (self._server, self._cameras, self._stop):
            if part is not None:
                part.end()

    def _path(self, name: str) -> str:
        """Return the path in a parameter, with the home folder in place of `~`."""
        return expanded(DashboardParameters.__dataclass_fields__[name], getattr(self._settings, name))

    def _is_moving(self) -> bool:
        return self._robot.policy()["state"] in MOVING_STATES

    def _look_around(self) -> None:
        """Subscribe to the cameras while a page shows them."""
        if self._server is not None and self._server.watched:
            self._watched_s = time.monotonic()
        watched = time.monotonic() - self._watched_s < UNWATCHED_S
        self._cameras.subscribe(self._robot.image_topics() if watched else {})
        self._simulator.refresh()

    # --- called by the other threads

    def _on_stop(self) -> None:
        self.get_logger().info(str(self._stop.result["text"]))
        if self._server is not None:
            self._server.update()

    def _show(self, topic: str, frame: bytes) -> None:
        if self._server is not None:
            self._server.show(topic, frame)

    def _press(self) -> None:
        self._robot.stops += 1
        self._stop.press()

    def _sections(self) -> dict:
        now_s = time.monotonic()
        if now_s - self._scanned_s > SCAN_PERIOD_S and (self._scan is None or self._scan.done()):
            self._scanned_s = now_s
            self._scan = asyncio.get_running_loop().run_in_executor(None, self._read_folders)
        return {
            "now": int(time.time()),  # so that an open page receives something every second
            "stop": self._stop.result,
            "policy": self._robot.policy(),
            "action": self._robot.action(),
            "diagnostics": self._robot.diagnostics("policy"),
            "recorder": self._robot.diagnostics("recorder"),
            "cameras": [camera.describe(now_s) for camera in self._cameras.cameras],
            "episodes": {**self._episodes.section, "target": self._target},
            "simulator": self._simulator.section,
            "jobs": self._jobs.section,
        }

    def _read_folders(self) -> None:
        self._episodes.scan()
        self._jobs.scan()

    async def _order(self, name: str, text: str) -> str:
        if name == "target":
            if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000):
                raise UserError(f"number of episodes {text!r}, expected 1 to 10000")
            self._target = int(text)
            return f"{text} episodes are planned"
        if name in ("reset_sim", "reset_record"):
            return await self._reset(text, name == "reset_record")
        if name == "cancel":
            return self._jobs.cancel()
        if name in JOBS:
            return await self._jobs.start(name, text)
        if name not in ORDERS:
            raise UserError(f"unknown order {name!r}; load the page again")
        try:
            return await self._robot.order(name, text)
        finally:
            if name in RECORDER_ORDERS:
                self._scanned_s = -SCAN_PERIOD_S

    async def _reset(self, text: str, record: bool) -> str:
        """Start an episode of the simulator, and its recording without delay."""
        if self._stop.is_stopping:
            raise UserError("a stop is in progress; repeat the order after it")
        answer = await self._simulator.reset(text)
        return f"{answer}; {await self._robot.order('record', '')}" if record else answer


def make_started() -> DashboardNode:
    """Return the node with its page open to browsers. Raises UserError."""
    node = DashboardNode()
    node.start()
    return node


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(make_started)


if __name__ == "__main__":
    sys.exit(main())
