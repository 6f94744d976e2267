"""One closed-loop episode in simulation, through the session that drives the robot.

The session receives stamped images and joints and returns commands in SI units. They are converted back into actions as
in the simulator node, so a checkpoint has the same inputs and outputs as over ROS.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m2distill_policy.action import ActionSample, Command, Hold, command_to_action
from m2distill_policy.control.session import PolicySession
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_training.evaluation.overlay import video_frame


@dataclass(frozen=True)
class RolloutOutcome:
    """Outcome of an episode."""

    success: bool  # the goal predicate was true after any step, as in LIBERO
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    instruction: str
    recorded: list[tuple[dict[str, np.ndarray], ActionSample | None]]  # images and sample of every step

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the images of a video, if the episode was recorded."""
        return (video_frame(images, self.instruction, sample) for images, sample in self.recorded)


class Episode:
    """One closed-loop episode, until success, `max_steps` or a Hold.

    In simulation every input is fresh, so a Hold is a fault and counts as a failure.

    Attributes:
        session: the policy's session.
        outcome: None until the episode has ended.
    """

    def __init__(
        self,
        env: ArmEnv,
        session: PolicySession,
        instruction: str,
        initial_state: np.ndarray | None,
        max_steps: int,
        record: bool = False,
        placement_seed: int | None = None,
    ):
        """Reset simulator and session.

        Args:
            env: the simulator.
            session: the policy's session.
            instruction: what to execute.
            initial_state: state of the simulator at the start; None draws a placement.
            max_steps: control steps after which the episode has failed.
            record: keep the images of every step.
            placement_seed: seed of a drawn placement.

        Raises:
            UserError: the policy does not know the instruction.
        """
        self.session = session
        self.outcome: RolloutOutcome | None = None
        self._env, self._instruction, self._max_steps, self._record = env, instruction, max_steps, record
        self._recorded: list[tuple[dict[str, np.ndarray], ActionSample | None]] = []
        self._step = 0
        session.reset()
        session.reset_fault()
        session.set_instruction(instruction)
        self._observation = env.reset(initial_state, seed=placement_seed)

    def feed(self) -> int:
        """Pass the newest observation to the session; return the time of the tick that is due."""
        now_ns = (self._step + 1) * self.session.spec.period_ns
        feed(self.session, self._observation, now_ns)
        return now_ns

    def take(self, answer: Command | Hold) -> None:
        """Execute the session's answer to the tick, and set `outcome` if the episode has ended."""
        sample = None if isinstance(answer, Hold) else answer.sample
        self._film(sample)
        if isinstance(answer, Hold):
            self._end(False, answer.reason)
            return
        spec = self.session.spec
        self._observation = self._env.step(
            command_to_action(
                spec.action, spec.rate_hz, answer.linear_m_s, answer.angular_rad_s, answer.gripper_width_m
            )
        )
        self._step += 1
        if self._env.success():
            self._film(sample)
            self._end(True)
        elif self._step == self._max_steps:
            self._end(False)

    def _film(self, sample: ActionSample | None) -> None:
        if self._record:
            self._recorded.append((self._observation.images, sample))

    def _end(self, success: bool, held: str = "") -> None:
        self.outcome = RolloutOutcome(success, self._step, held, self._instruction, self._recorded)


def feed(session: PolicySession, observation: SimObservation, stamp_ns: int) -> None:
    """Pass one simulator observation to the session with the signs of a robot's topics: fingers open positively."""
    spec = session.spec
    for camera, image in observation.images.items():
        session.observe_image(camera, image, stamp_ns)
    fingers = observation.gripper_positions * np.array(spec.gripper_joint_signs)
    if spec.observes_hand:
        session.observe_joints(spec.gripper_joint_names, fingers.tolist(), stamp_ns)
        session.observe_pose(observation.ee_pos.tolist(), observation.ee_quat_xyzw.tolist(), stamp_ns)
    else:
        names = spec.joint_names + spec.gripper_joint_names
        session.observe_joints(names, np.concatenate([observation.joint_positions, fingers]).tolist(), stamp_ns)
