"""Node `sim`: a LIBERO task with the topics of a real arm.

It publishes cameras, joint states, the hand's pose, TF and /clock (within a namespace a clock of its own), and
subscribes to twist_cmd and gripper_cmd. All stamps are simulation time, which starts at 1 s, never decreases, and
advances by 1 s at a reset. An episode starts with the node and at every `~/reset`, with the task and the initial state
of the present parameters.

Pacing `real_time`: a step every 50 ms of the steady clock, with the newest command if it is fresh, otherwise without
motion. Pacing `lockstep`: a step for each command that answers the last observation (a gripper_cmd, then a twist_cmd
with the observation's stamp). Until it arrives, the simulation waits and publishes the observation again from time to
time, so a slow machine produces the same episode as a fast one.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import Bool, Float64, String, UInt32
from std_srvs.srv import Trigger

from m2distill_policy.action import command_to_action
from m2distill_policy.bringup.parameters import SimParameters
from m2distill_policy.cameras import CAMERAS, read_cameras, square_sizes
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import conversions, parameters
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.spec import ActionSpec
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_sim.env_factory import make_env
from m2distill_sim.experts import check_expert
from m2distill_sim.ros.driver import ExpertDriver
from m2distill_sim.ros.sensor_topics import Outgoing, SensorTopics
from m2distill_sim.suites import assets_of, initial_states
from m2distill_sim.video import write_video

RATE_HZ = 20.0  # LIBERO's control rate
PERIOD_NS = round(1e9 / RATE_HZ)
RESET_LEAP_NS = 1_000_000_000
VIDEO_BYTES = 2**27  # images kept for a video: 68 s of two cameras of 128 px, encoded within 10 s


class GripperCommand(NamedTuple):
    """Received opening of the gripper."""

    width_m: float
    sent_ns: int  # by the sender's wall clock


class TwistCommand(NamedTuple):
    """Received velocity of the hand."""

    linear_m_s: np.ndarray
    angular_rad_s: np.ndarray
    stamp_ns: int  # of the observation it answers
    sent_ns: int


@dataclass
class EpisodeState:
    """State of one episode."""

    gripper: GripperCommand | None = None  # the last one
    twist: TwistCommand | None = None  # the last one
    used_ns: int = 0  # when the twist of the last step was sent
    steps: int = 0
    succeeded: bool = False
    over: bool = False


class SimNode(Node):
    """Simulator with one episode at a time."""

    def __init__(self):
        super().__init__("sim")
        parameters.declare(self, SimParameters)
        self._settings = parameters.read(self, SimParameters)
        self._lockstep = self._settings.pacing == "lockstep"
        self._meaning = ActionSpec()
        self._env: ArmEnv | None = None
        self._now_ns = 0
        self._frames: list[np.ndarray] = []
        self._video = ""

        self._clock_pub = self.create_publisher(ClockMessage, "/clock", 1)
        self._cameras = read_cameras(Path(self._settings.cameras)) if self._settings.cameras else CAMERAS
        self._sensors = SensorTopics(self, self._cameras)
        self._observation: list[Outgoing] = []  # the last one, as it was published
        self._success_pub = self.create_publisher(Bool, "~/success", conversions.LATCHED)
        self._over_pub = self.create_publisher(Bool, "~/episode_over", conversions.LATCHED)
        self._steps_pub = self.create_publisher(UInt32, "~/steps", conversions.LATCHED)
        self._task_pub = self.create_publisher(String, "~/task", conversions.LATCHED)
        # The casts are needed because rclpy's type of a callback has no second argument.
        self.create_subscription(Float64, "gripper_cmd", cast(Any, self._on_gripper), 10)
        self.create_subscription(TwistStamped, "twist_cmd", cast(Any, self._on_twist), 10)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._expert: ExpertDriver | None = None  # from its first use on
        self._driver: ExpertDriver | None = None  # drives this episode through the command topics

        self._start_episode()
        period_s, act = (
            (self._settings.repeat_period_s, self._publish_observation)
            if self._lockstep
            else (1 / RATE_HZ, self._step_by_the_clock)
        )
        self._timer = self.create_timer(period_s, act, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Write the open video and close the simulation."""
        self._end_video()
        if self._env is not None:
            self._env.close()

    # --- episodes

    def _on_reset(self, _, response: Trigger.Response) -> Trigger.Response:
        try:
            response.success, response.message = True, self._start_episode().instruction
        except UserError as error:
            self.get_logger().error(str(error))
            response.success, response.message = False, str(error)
        return response

    def _start_episode(self) -> ArmEnv:
        """Start an episode and return its environment.

        Raises:
            UserError: The parameters name a task or a state that does not exist; the old episode continues.
        """
        chosen = parameters.read(self, SimParameters)
        initial_state = None
        if chosen.initial_state >= 0:
            states = initial_states(chosen.suite, chosen.task)
            if chosen.initial_state >= len(states):
                raise UserError(
                    f"initial_state is {chosen.initial_state}, {chosen.suite} task {chosen.task} has "
                    f"{len(states)} states (allowed: 0 to {len(states) - 1}, or -1)"
                )
            initial_state = states[chosen.initial_state]
        if chosen.video:
            _make_folder(Path(chosen.video).parent)
        if chosen.driver == "expert":
            check_expert(chosen.suite)  # before the previous scene is closed
        env = self._use_env(chosen)
        self._end_video()
        self._settings, self._video = chosen, chosen.video
        self._episode = EpisodeState()
        self._now_ns += RESET_LEAP_NS
        self._success_pub.publish(Bool(data=False))
        self._over_pub.publish(Bool(data=False))
        self._task_pub.publish(String(data=env.instruction))
        self.get_logger().info(
            f"{chosen.suite} task {chosen.task}, initial state {chosen.initial_state}: {env.instruction}"
        )
        observation = env.reset(initial_state, chosen.seed)
        self._sensors.describe(env, self._now_ns)
        self._use_driver(chosen, env)
        self._observe(observation)
        return env

    def _use_driver(self, chosen: SimParameters, env: ArmEnv) -> None:
        if chosen.driver == "expert":
            self._driver = self._expert = self._expert or ExpertDriver(self)
            self._driver.begin(env, chosen.seed, chosen.disturbed)
        elif self._driver:
            self._driver.release()
            self._driver = None

    def _use_env(self, chosen: SimParameters) -> ArmEnv:
        if self._env is not None and (self._env.task.suite, self._env.task.index) == (chosen.suite, chosen.task):
            return self._env
        sizes = square_sizes(chosen.image_size_px, self._cameras)
        env = make_env(
            chosen.suite, chosen.task, assets_of(chosen.suite, chosen.assets or None), sizes, views=self._cameras
        )
        if self._env is not None:
            self._env.close()
        self._env = env
        return env

    def _end_video(self) -> None:
        if self._frames:
            try:
                write_video(Path(self._video), self._frames, RATE_HZ)
                self.get_logger().info(f"wrote {self._video}")
            except OSError as error:  # such as a full disk; the simulation continues
                self.get_logger().error(f"the video {self._video} could not be written: {error}")
        self._frames = []

    # --- commands

    def _on_gripper(self, message: Float64, info: dict[str, int]) -> None:
        if not math.isfinite(message.data):
            self.get_logger().warning(f"gripper_cmd {message.data} is not finite; ignored")
            return
        self._episode.gripper = GripperCommand(message.data, info["source_timestamp"])
        self._step_if_answered()

    def _on_twist(self, message: TwistStamped, info: dict[str, int]) -> None:
        try:
            linear_m_s, angular_rad_s = conversions.twist_to_numpy(message)
        except conversions.MessageError as error:
            self.get_logger().warning(f"twist_cmd ignored: {error}")
            return
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        self._episode.twist = TwistCommand(linear_m_s, angular_rad_s, stamp_ns, info["source_timestamp"])
        self._step_if_answered()

    def _step_if_answered(self) -> None:
        """Step in lockstep if both commands for the last observation have arrived, in any order.

        The gripper's command has no stamp; it belongs to the step if it was sent before the twist and after the twist
        of the previous step. A twist alone is not an answer.
        """
        gripper, twist = self._episode.gripper, self._episode.twist
        if (
            self._lockstep
            and not self._episode.over
            and gripper
            and twist
            and twist.stamp_ns == self._now_ns
            and self._episode.used_ns < gripper.sent_ns <= twist.sent_ns
        ):
            self._episode.used_ns = twist.sent_ns
            self._step(
                command_to_action(self._meaning, RATE_HZ, twist.linear_m_s, twist.angular_rad_s, gripper.width_m)
            )
            self._timer.reset()

    def _step_by_the_clock(self) -> None:
        if self._episode.over:
            self._publish_observation()
            return
        gripper, twist = self._episode.gripper, self._episode.twist
        action = np.zeros(7)  # no motion; the gripper keeps its target
        if twist and self._is_fresh(twist):
            action[:6] = command_to_action(self._meaning, RATE_HZ, twist.linear_m_s, twist.angular_rad_s, 0.0)[:6]
        if gripper:
            action[6] = command_to_action(self._meaning, RATE_HZ, np.zeros(3), np.zeros(3), gripper.width_m)[6]
        self._step(action)

    def _is_fresh(self, twist: TwistCommand) -> bool:
        """Return whether the twist is recent. A stamp in the future is of another clock and would never expire."""
        age_s = (self._now_ns - twist.stamp_ns) / 1e9
        if age_s < 0:
            self.get_logger().warning(
                f"no motion: twist_cmd is stamped {-age_s:.1f} s ahead of the simulator's time; "
                "start its sender with use_sim_time:=true",
                throttle_duration_sec=5.0,
            )
        return 0 <= age_s <= self._settings.command_max_age_s

    # --- simulation

    def _step(self, action: np.ndarray) -> None:
        assert self._env is not None  # an episode has begun
        if self._driver:
            action = action + self._driver.pushes(action)
        observation = self._env.step(action)
        self._now_ns += PERIOD_NS
        self._episode.steps += 1
        if not self._episode.succeeded and self._env.success():
            self._episode.succeeded = True
            self._steps_pub.publish(UInt32(data=self._episode.steps))
            self._success_pub.publish(Bool(data=True))
            self.get_logger().info(f"success after {self._episode.steps} steps")
        if self._episode.steps == self._settings.step_limit:
            self._episode.over = True
            self.get_logger().info(f"over after {self._episode.steps} steps; call ~/reset to start another episode")
            if not self._episode.succeeded:
                self._steps_pub.publish(UInt32(data=self._episode.steps))
            self._over_pub.publish(Bool(data=True))
            if self._driver:
                self._driver.release()
        self._observe(observation)

    def _observe(self, observation: SimObservation) -> None:
        clock = ClockMessage(clock=conversions.stamp_from_ns(self._now_ns))
        assert self._env is not None  # an episode has begun
        sensed = self._sensors.messages(self._env, observation, self._now_ns)
        self._observation = [(self._clock_pub, clock), *sensed]
        if self._video:
            self._add_frame(self._frame(observation.images))
        self._publish_observation()

    def _frame(self, images: dict[str, np.ndarray]) -> np.ndarray:
        """Return all views side by side; one whose camera states a size is resized."""
        side = self._settings.image_size_px
        views = (images[camera.name] for camera in self._cameras)
        return np.hstack([v if len(v) == side else cv2.resize(v, (side, side)) for v in views])

    def _add_frame(self, frame: np.ndarray) -> None:
        room = VIDEO_BYTES // frame.nbytes - len(self._frames)
        if room > 0:
            self._frames.append(frame)
        if room == 1:
            self.get_logger().warning(
                f"the video ends after {len(self._frames)} images, because at most {VIDEO_BYTES >> 20} MiB "
                "are kept of an episode"
            )

    def _publish_observation(self) -> None:
        for publisher, message in self._observation:
            publisher.publish(message)
        if self._driver and not self._episode.over:
            self._driver.answer(self._now_ns)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"video: the folder {folder} is not writable ({error.strerror}); choose another one") from None


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(SimNode)


if __name__ == "__main__":
    sys.exit(main())
