"""The node `sim`: a LIBERO task seen through the topics of a real arm.

Cameras, joint states and /clock out; twist_cmd and gripper_cmd in. All stamps are simulation time, which starts at 1 s,
never goes back, and leaps by 1 s at a reset. An episode starts with the node and at every `~/reset`, on the task and
initial state that the parameters name then.

Pacing `real_time`: a step every 50 ms of the steady clock, with the newest command if it is fresh, else without motion.
Pacing `lockstep`: a step for each command that answers the last observation (a gripper_cmd, then a twist_cmd with the
observation's stamp). Until it comes the simulation stands still and repeats the observation from time to time, so a
slow machine gets the same episode as a fast one.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64, String, UInt32
from std_srvs.srv import Trigger

from m2distill_policy.action import command_to_action
from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import conversions, parameters
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, ActionSpec
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.parameters import parameter
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_sim.env_factory import make_env
from m2distill_sim.experts import check_expert
from m2distill_sim.ros.driver import ExpertDriver
from m2distill_sim.suites import assets_of, initial_states
from m2distill_sim.video import write_video

RATE_HZ = 20.0  # LIBERO's control rate
PERIOD_NS = round(1e9 / RATE_HZ)
RESET_LEAP_NS = 1_000_000_000
FILM_BYTES = 2**27  # of an episode's images kept for its video: 68 s of two cameras of 128 px, encoded within 10 s
FINGER_SIGNS = (1.0, -1.0)  # robosuite counts the second finger negative; robots do not


@dataclass(frozen=True)
class SimParameters:
    suite: str = parameter(DEFAULT_SUITE, "suite of tasks; taken up by ~/reset")
    task: int = parameter(0, "index of the task within the suite; taken up by ~/reset", at_least=0, at_most=129)
    initial_state: int = parameter(
        0,
        "index among the task's initial states, or -1: a placement drawn by `seed`; taken up by ~/reset",
        at_least=-1,
        at_most=999,
    )
    seed: int = parameter(0, "of a drawn placement; taken up by ~/reset", at_least=0, at_most=2**31 - 1)
    step_limit: int = parameter(
        600, "steps of an episode, after which the world stands still; 0: endless", at_least=0, at_most=1_000_000
    )
    video: str = parameter("", "mp4 file for the next episode, written when it ends; empty: none; taken up by ~/reset")
    assets: str = parameter("", "kind or folder of assets; empty: the best there is", read_only=True)
    image_size_px: int = parameter(128, "side of the cameras' images", at_least=16, at_most=1024, read_only=True)
    pacing: str = parameter("real_time", "when to step", choices=("real_time", "lockstep"), read_only=True)
    command_max_age_s: float = parameter(0.25, "real_time: oldest twist acted on", at_least=0.01, at_most=60.0)
    operator: str = parameter(
        "none",
        "expert: the scripted expert drives the arm by the command topics, in an operator's place; taken up by ~/reset",
        choices=("none", "expert"),
    )
    disturbed: bool = parameter(False, "push the arm about while the expert drives it; taken up by ~/reset")
    repeat_period_s: float = parameter(
        1.0,
        "lockstep: wall time after which an unanswered observation is repeated",
        at_least=0.05,
        at_most=600.0,
        read_only=True,
    )


class GripperCommand(NamedTuple):
    width_m: float
    sent_ns: int  # by the sender's wall clock


class TwistCommand(NamedTuple):
    linear_m_s: np.ndarray
    angular_rad_s: np.ndarray
    stamp_ns: int  # of the observation it answers
    sent_ns: int


class SimNode(Node):
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
        self._joints_pub = self.create_publisher(JointState, "joint_states", 5)
        self._image_pubs = {name: self.create_publisher(Image, f"{name}/image_raw", 1) for name in CAMERA_NAMES}
        self._success_pub = self.create_publisher(Bool, "~/success", conversions.LATCHED)
        self._over_pub = self.create_publisher(Bool, "~/episode_over", conversions.LATCHED)
        self._steps_pub = self.create_publisher(UInt32, "~/steps", conversions.LATCHED)
        self._task_pub = self.create_publisher(String, "~/task", conversions.LATCHED)
        # The casts: rclpy declares callbacks of the message alone.
        self.create_subscription(Float64, "gripper_cmd", cast(Any, self._on_gripper), 10)
        self.create_subscription(TwistStamped, "twist_cmd", cast(Any, self._on_twist), 10)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._expert: ExpertDriver | None = None  # once it has been asked for
        self._operator: ExpertDriver | None = None  # who drives this episode by the command topics

        self._start_episode()
        period_s, act = (
            (self._settings.repeat_period_s, self._publish_observation)
            if self._lockstep
            else (1 / RATE_HZ, self._step_by_the_clock)
        )
        self._timer = self.create_timer(period_s, act, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
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
        """Its world. Raises UserError, and the old episode goes on, when the parameters name nothing that exists."""
        chosen = parameters.read(self, SimParameters)
        initial_state = None
        if chosen.initial_state >= 0:
            states = initial_states(chosen.suite, chosen.task)
            if chosen.initial_state >= len(states):
                raise UserError(
                    f"initial_state is {chosen.initial_state}, {chosen.suite} task {chosen.task} has "
                    f"{len(states)} (allowed: 0 to {len(states) - 1}, or -1)"
                )
            initial_state = states[chosen.initial_state]
        if chosen.video:
            _make_folder(Path(chosen.video).parent)
        if chosen.operator == "expert":
            check_expert(chosen.suite)  # before the previous world is closed
        env = self._use_env(chosen)
        self._end_video()
        self._settings, self._video = chosen, chosen.video
        self._gripper: GripperCommand | None = None
        self._twist: TwistCommand | None = None
        self._used_ns = 0  # when the twist of the last step was sent
        self._steps = 0
        self._succeeded = self._over = False
        self._now_ns += RESET_LEAP_NS
        self._success_pub.publish(Bool(data=False))
        self._over_pub.publish(Bool(data=False))
        self._task_pub.publish(String(data=env.instruction))
        self.get_logger().info(
            f"{chosen.suite} task {chosen.task}, initial state {chosen.initial_state}: {env.instruction}"
        )
        observation = env.reset(initial_state, chosen.seed)
        self._use_operator(chosen, env)
        self._observe(observation)
        return env

    def _use_operator(self, chosen: SimParameters, env: ArmEnv) -> None:
        if chosen.operator == "expert":
            self._operator = self._expert = self._expert or ExpertDriver(self)
            self._operator.begin(env, chosen.seed, chosen.disturbed)
        elif self._operator:
            self._operator.let_go()
            self._operator = None

    def _use_env(self, chosen: SimParameters) -> ArmEnv:
        if self._env is not None and (self._env.task.suite, self._env.task.index) == (chosen.suite, chosen.task):
            return self._env
        size = (chosen.image_size_px, chosen.image_size_px)
        env = make_env(
            chosen.suite, chosen.task, assets_of(chosen.suite, chosen.assets or None), dict.fromkeys(CAMERA_NAMES, size)
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
            except OSError as error:  # a full disk, say: the world goes on
                self.get_logger().error(f"the video {self._video} could not be written: {error}")
        self._frames = []

    # --- commands

    def _on_gripper(self, message: Float64, info: dict[str, int]) -> None:
        if not math.isfinite(message.data):
            self.get_logger().warning(f"gripper_cmd {message.data} is not finite; passed over")
            return
        self._gripper = GripperCommand(message.data, info["source_timestamp"])
        self._step_if_answered()

    def _on_twist(self, message: TwistStamped, info: dict[str, int]) -> None:
        try:
            linear_m_s, angular_rad_s = conversions.twist_to_numpy(message)
        except conversions.MessageError as error:
            self.get_logger().warning(f"twist_cmd passed over: {error}")
            return
        stamp_ns = conversions.stamp_to_ns(message.header.stamp)
        self._twist = TwistCommand(linear_m_s, angular_rad_s, stamp_ns, info["source_timestamp"])
        self._step_if_answered()

    def _step_if_answered(self) -> None:
        """Lockstep: both commands are there. The gripper's, which has no stamp, was sent before its twist and after the
        twist of the step before; which of the two arrives first is left to chance. A twist alone is no answer."""
        gripper, twist = self._gripper, self._twist
        if (
            self._lockstep
            and not self._over
            and gripper
            and twist
            and twist.stamp_ns == self._now_ns
            and self._used_ns < gripper.sent_ns <= twist.sent_ns
        ):
            self._used_ns = twist.sent_ns
            self._step(
                command_to_action(self._meaning, RATE_HZ, twist.linear_m_s, twist.angular_rad_s, gripper.width_m)
            )
            self._timer.reset()

    def _step_by_the_clock(self) -> None:
        if self._over:
            self._publish_observation()
            return
        gripper, twist = self._gripper, self._twist
        action = np.zeros(7)  # no motion; the gripper keeps its target
        if twist and self._is_fresh(twist):
            action[:6] = command_to_action(self._meaning, RATE_HZ, twist.linear_m_s, twist.angular_rad_s, 0.0)[:6]
        if gripper:
            action[6] = command_to_action(self._meaning, RATE_HZ, np.zeros(3), np.zeros(3), gripper.width_m)[6]
        self._step(action)

    def _is_fresh(self, twist: TwistCommand) -> bool:
        """A stamp that lies ahead is of another clock and would never grow old."""
        age_s = (self._now_ns - twist.stamp_ns) / 1e9
        if age_s < 0:
            self.get_logger().warning(
                f"no motion: twist_cmd is stamped {-age_s:.1f} s ahead of the simulator's time; "
                "start its sender with use_sim_time:=true",
                throttle_duration_sec=5.0,
            )
        return 0 <= age_s <= self._settings.command_max_age_s

    # --- the world

    def _step(self, action: np.ndarray) -> None:
        assert self._env is not None  # an episode has begun
        if self._operator:
            action = action + self._operator.pushes(action)
        observation = self._env.step(action)
        self._now_ns += PERIOD_NS
        self._steps += 1
        if not self._succeeded and self._env.success():
            self._succeeded = True
            self._steps_pub.publish(UInt32(data=self._steps))
            self._success_pub.publish(Bool(data=True))
            self.get_logger().info(f"success after {self._steps} steps")
        if self._steps == self._settings.step_limit:
            self._over = True
            self.get_logger().info(f"over after {self._steps} steps; ~/reset begins another episode")
            if not self._succeeded:
                self._steps_pub.publish(UInt32(data=self._steps))
            self._over_pub.publish(Bool(data=True))
            if self._operator:
                self._operator.let_go()
        self._observe(observation)

    def _observe(self, observation: SimObservation) -> None:
        positions = np.concatenate([observation.joint_positions, observation.gripper_positions * FINGER_SIGNS])
        joints = conversions.joint_state_from_numpy([*PANDA_JOINTS, *PANDA_FINGERS], positions, self._now_ns)
        self._observation = [
            (self._clock_pub, ClockMessage(clock=conversions.stamp_from_ns(self._now_ns))),
            (self._joints_pub, joints),
        ]
        for name, publisher in self._image_pubs.items():
            image = conversions.image_from_numpy(observation.images[name], self._now_ns, f"{name}_optical_frame")
            self._observation.append((publisher, image))
        if self._video:
            self._film(np.hstack([observation.images[name] for name in CAMERA_NAMES]))
        self._publish_observation()

    def _film(self, frame: np.ndarray) -> None:
        room = FILM_BYTES // frame.nbytes - len(self._frames)
        if room > 0:
            self._frames.append(frame)
        if room == 1:
            self.get_logger().warning(
                f"the video ends here, after {len(self._frames)} images: no more than "
                f"{FILM_BYTES >> 20} MiB are kept of an episode"
            )

    def _publish_observation(self) -> None:
        for publisher, message in self._observation:
            publisher.publish(message)
        if self._operator and not self._over:
            self._operator.answer(self._now_ns)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"video: {folder} is no folder to write to ({error.strerror}); choose another place") from None


def main() -> int:
    return run_node(SimNode)


if __name__ == "__main__":
    sys.exit(main())
