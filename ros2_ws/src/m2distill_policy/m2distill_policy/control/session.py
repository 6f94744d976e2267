"""Core of the control loop, without a clock, ROS or torch.

The caller passes observations with their stamps and calls `PolicySession.tick` once per control period. The result is a
Command for the newest complete observation, or a Hold with the reason. A missing input is never estimated.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from m2distill_policy.action import ActionSample, Command, Hold, sample_to_command
from m2distill_policy.errors import MessageError, PolicyHoldError, SpecError, UserError
from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.observations.input_stream import InputStream
from m2distill_policy.observations.joint_merger import JointMerger
from m2distill_policy.observations.observation import Observation, prepare_image
from m2distill_policy.observations.poses import Pose, hand_state, valid_pose
from m2distill_policy.robot import HAND, SAME
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.safety.joint_limits import joint_ranges
from m2distill_policy.safety.limits import CommandGuard, SafetyFault, SafetyLimits
from m2distill_policy.spec import PolicySpec

JOINTS, POSE = "joint_states", "ee_pose"  # names of the inputs besides the cameras
RECENT = 10  # number of observations kept to validate another checkpoint
JUMP_HOLD_NS = 500_000_000  # time without another jump of a joint after which the arm may move again


class StepPolicy(Protocol):
    """Policy that is called once per step and keeps its own history, such as `inference.InferencePolicy`.

    A step may raise PolicyHoldError; the arm is then held.
    """

    def reset(self) -> None: ...
    def set_text(self, embedding_L: np.ndarray) -> None: ...
    def step(self, observation: Observation) -> ActionSample: ...


class PolicySession:
    """One policy that controls one robot.

    Args:
        spec: Inputs, rate and actions of the policy.
        policy: The policy.
        instructions: Sentence embedding (L,) float32 of each instruction that the checkpoint knows.
        limits: Safety limits; by default those of the simulated robot.
        use_pose: Make the hand's pose an input, as it is whenever `limits` define a workspace or the policy observes
            it.

    Raises:
        UserError: The policy observes the hand, and `limits` check joints that they do not name.
    """

    def __init__(
        self,
        spec: PolicySpec,
        policy: StepPolicy,
        instructions: Mapping[str, np.ndarray],
        limits: SafetyLimits | None = None,
        use_pose: bool = False,
    ):
        limits = limits_of("libero_sim") if limits is None else limits
        self.spec = spec
        self.limits = limits
        self.instruction = ""
        self.fault = ""
        self.recent: deque[Observation] = deque(maxlen=RECENT)  # observations with an action, oldest first
        self._policy = policy
        self._set_embeddings(instructions)
        self._guard = CommandGuard(limits, spec.rate_hz)
        # Of a policy that observes the hand, joints are watched for their limits alone.
        watched = _watched_joints(limits) if spec.observes_hand else spec.joint_names
        self.joint_spec = dataclasses.replace(spec, joint_names=watched)  # names the joints to receive
        self._ranges_J2 = joint_ranges(watched, limits)

        def stream(name: str) -> InputStream:
            return InputStream(name, round(limits.max_age_s * 1e9), round(limits.max_lead_s * 1e9))

        self._cameras = {camera.name: stream(camera.name) for camera in spec.cameras}
        self._joints = stream(JOINTS) if watched or spec.gripper_joint_names else None
        self._merger = JointMerger(
            self.joint_spec, limits.max_joint_speed_rad_s or math.inf, round(limits.max_age_s * 1e9)
        )
        self._jump: tuple[str, int] | None = None  # joint that jumped last, and the stamp
        self._pose = stream(POSE) if use_pose or limits.has_workspace or spec.observes_hand else None
        self._history_broken = True

    @property
    def streams(self) -> list[InputStream]:
        """Inputs in the order of ~/action: cameras, then what the policy observes of the arm, then the other."""
        arm = [self._pose, self._joints] if self.spec.observes_hand else [self._joints, self._pose]
        return [*self._cameras.values(), *(stream for stream in arm if stream)]

    @property
    def pose(self) -> Pose | None:
        """Newest pose of the hand, or None."""
        return self._pose.value if self._pose else None

    @property
    def instructions(self) -> list[str]:
        """Known instructions, sorted."""
        return sorted(original for original, _ in self._embeddings.values())

    def known(self, text: str) -> str | None:
        """Return the checkpoint's instruction that equals `text` after normalisation, or None."""
        known = self._embeddings.get(normalise(text))
        return known[0] if known else None

    def set_instruction(self, text: str) -> None:
        """Start following an instruction with an empty history.

        Raises:
            UserError: The instruction is unknown; the session has stopped.
        """
        if self.known(text) is None:
            self.stop()
            raise UserError(f"unknown instruction {text!r}; known: {'; '.join(self.instructions)}")
        self.instruction, embedding = self._embeddings[normalise(text)]
        self._policy.set_text(embedding)
        self._history_broken = True

    def adopt(self, spec: PolicySpec, policy: StepPolicy, instructions: Mapping[str, np.ndarray]) -> None:
        """Replace the policy from the next tick on, with an empty history. The arm need not stop.

        Raises:
            UserError: The spec has other inputs, rate or actions, or the new policy does not know the current
                instruction. Nothing has changed.
        """
        require_same_robot(self.spec, spec)
        if self.instruction and normalise(self.instruction) not in map(normalise, instructions):
            raise UserError(f"it does not know the current instruction {self.instruction!r}; stop first")
        self.spec, self._policy = spec, policy
        self._set_embeddings(instructions)
        if self.instruction:
            self._policy.set_text(self._embeddings[normalise(self.instruction)][1])
        self._policy.reset()

    def _set_embeddings(self, instructions: Mapping[str, np.ndarray]) -> None:
        self._embeddings = {normalise(text): (text, embedding) for text, embedding in instructions.items()}

    def stop(self) -> None:
        """Clear the instruction; every tick holds until the next one is set."""
        self.instruction = ""
        self._history_broken = True

    def interrupt(self) -> None:
        """Record that the last command was not completed; the next one starts with an empty history."""
        self._history_broken = True

    def reset(self) -> None:
        """Clear all observations and the policy's history; keep the instruction."""
        for stream in self.streams:
            stream.clear()
        self._merger.clear()
        self._history_broken = True

    def reset_fault(self) -> None:
        self.fault = ""

    def observe_image(self, camera: str, image_HWC: np.ndarray, stamp_ns: int) -> None:
        """Set an upright (H, W, 3) uint8 RGB image. After a malformed one the arm holds until a valid one arrives."""
        stream = self._cameras[camera]
        try:
            self._history_broken |= stream.accept(prepare_image(image_HWC, self.spec.camera(camera)), stamp_ns)
        except SpecError as error:
            stream.reject(str(error))

    def observe_joints(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> int | None:
        """Set the positions of all joints or of a part of them, by name (rad; fingers m).

        After malformed ones the arm holds until valid ones arrive. A message without a joint of the spec is ignored.

        Returns:
            The stamp of the oldest joint if each has arrived since this was last returned; the message's own stamp if
            the arm must be held; otherwise None.
        """
        merger = self._merger
        if self._joints is None:
            return None
        known = merger.update(names, positions, stamp_ns)
        if merger.problem:
            self._joints.reject(merger.problem)
            return stamp_ns if known else None
        if not known:
            return None
        part, oldest_ns = merger.oldest
        leapt = self._joints.accept(merger.positions(), merger.newest_ns, part, oldest_ns)
        if merger.jumped:
            self._jump = merger.jumped, stamp_ns
        self._history_broken |= leapt or bool(merger.jumped)
        return oldest_ns if merger.complete else None

    def observe_pose(
        self, position_m: Sequence[float] | np.ndarray, quat_xyzw: Sequence[float] | np.ndarray, stamp_ns: int
    ) -> None:
        """Set the hand's pose in the base frame. After a malformed one the arm holds until a valid one arrives."""
        assert self._pose is not None  # one of `streams`
        try:
            self._history_broken |= self._pose.accept(valid_pose(position_m, quat_xyzw), stamp_ns)
        except MessageError as error:
            self._pose.reject(f"{POSE} {error}")

    def reject_input(self, name: str, reason: str) -> None:
        """Record that a message on the input `name`, one of `streams`, could not be decoded."""
        next(stream for stream in self.streams if stream.name == name).reject(f"{name}: {reason}")

    def tick(self, now_ns: int) -> Command | Hold:
        """Return the command for this control step, or the reason to hold.

        After a Hold the policy starts with an empty history, because a history with a gap must not be used.
        """
        observation = self.begin_tick(now_ns)
        return observation if isinstance(observation, Hold) else self.end_tick(observation, self._policy.step)

    def begin_tick(self, now_ns: int) -> Observation | Hold:
        """Return the observation for the policy, or the reason to hold.

        This is the first half of `tick`, for a caller that passes the observations of several sessions through a
        network at once. `end_tick` must follow an observation.
        """
        reason = self.why_hold(now_ns)
        if reason:
            self._history_broken = True
            return Hold(reason)
        if self._history_broken:
            self._policy.reset()
            self._guard.restart()
        self._history_broken = True  # until a command results
        observation = self._observation()
        try:
            self._check_joints()
        except SafetyFault as fault:
            return self._stop_by(fault)
        self.recent.append(observation)
        return observation

    def end_tick(self, observation: Observation, step: Callable[[Observation], ActionSample]) -> Command | Hold:
        """Return the command that the policy's sample becomes, or the reason to hold; `step` returns the sample."""
        try:
            sample = step(observation)
            if not np.isfinite(sample.action).all():
                raise SafetyFault(f"the policy produced an action that is not finite: {sample.action.tolist()}")
            command = sample_to_command(self.spec, sample, observation.stamp_ns)
            command = self._guard.apply_limits(command, self._pose.value.position_m if self._pose else None)
        except SafetyFault as fault:
            return self._stop_by(fault)
        except PolicyHoldError as problem:
            return Hold(str(problem))
        self._history_broken = False
        return command

    def _stop_by(self, fault: SafetyFault) -> Hold:
        self.fault = str(fault)
        return Hold(self.fault)

    def _check_joints(self) -> None:
        if self._joints is not None:
            joint_J, _ = self._joints.value
            _check_joints(self.joint_spec.joint_names, joint_J, self._ranges_J2, self.limits.joint_margin_rad)

    def why_hold(self, now_ns: int) -> str:
        """Return why a tick must hold; empty if it may act."""
        if self.fault:
            return self.fault
        if not self.instruction:
            return "no instruction"
        for stream in self.streams:
            if reason := stream.unusable_reason(now_ns):
                return reason
        oldest, newest = min(self.streams, key=lambda s: s.oldest_ns), max(self.streams, key=lambda s: s.stamp_ns)
        if newest.stamp_ns - oldest.oldest_ns > self.limits.max_skew_s * 1e9:
            part = f" {oldest.oldest_part}" if oldest.oldest_part else ""
            return f"{oldest.name}{part} is more than {self.limits.max_skew_s * 1e3:.0f} ms older than {newest.name}"
        if self._jump and 0 <= now_ns - self._jump[1] < JUMP_HOLD_NS:
            return (
                f"{JOINTS}: {self._jump[0]} jumps, faster than {self.limits.max_joint_speed_rad_s:g} rad/s "
                "(max_joint_speed_rad_s); check the driver, and that no other source publishes this joint"
            )
        return ""

    def _observation(self) -> Observation:
        images = {name: stream.value for name, stream in self._cameras.items()}
        joints = self._joints.value if self._joints else None
        return arm_observation(self.spec, images, joints, self.pose, max(s.stamp_ns for s in self.streams))


def arm_observation(
    spec: PolicySpec,
    images: dict[str, np.ndarray],
    joints: tuple[np.ndarray, np.ndarray] | None,
    pose: Pose | None,
    stamp_ns: int,
) -> Observation:
    """Return the model's input of one step.

    Args:
        spec: of the policy.
        images: prepared, by camera.
        joints: positions of the arm and of the gripper, as `JointMerger.positions`; None: the policy needs none.
        pose: of the hand; None unless the policy observes it.
        stamp_ns: of the newest part.
    """
    joint_J, gripper_G = (np.zeros(0, np.float32),) * 2 if joints is None else joints
    if spec.observes_hand:
        assert pose is not None  # an input of such a policy
        joint_J = hand_state(pose, spec.hand_reference)
    return Observation(images, joint_J, gripper_G, stamp_ns)


def _watched_joints(limits: SafetyLimits) -> tuple[str, ...]:
    """Return the joints whose limits are checked although the policy does not observe them. Raises UserError."""
    if not limits.joint_names and limits.joint_margin_rad >= 0:
        raise UserError(
            "the checkpoint observes the pose of the hand, so the joints whose limits are checked are unknown; set "
            "joint_names to the arm's, or joint_margin_rad to -10 for no check"
        )
    return limits.joint_names if limits.joint_margin_rad >= 0 else ()


def _check_joints(names: tuple[str, ...], joint_J: np.ndarray, ranges_J2: np.ndarray, margin_rad: float) -> None:
    """Raise SafetyFault for the first joint, in rad, that is nearer than the margin to a limit of its range."""
    for name, angle, (low, high) in zip(names, joint_J, ranges_J2, strict=True):
        if not low + margin_rad <= angle <= high - margin_rad:
            raise SafetyFault(
                f"{name} is at {angle:.3f} rad, closer than {margin_rad:g} (joint_margin_rad) to the "
                f"limits of its range {low:g} to {high:g}; move the arm away from them"
            )


def require_same_robot(ours: PolicySpec, other: PolicySpec) -> None:
    """Raise UserError if the two specs differ in their inputs, rate or actions."""
    for name in ("cameras", *SAME, *(HAND if ours.observes_hand else ())):
        if getattr(other, name) != getattr(ours, name):
            raise UserError(
                f"its spec has {name} {getattr(other, name)}, this robot's is {getattr(ours, name)}; "
                "configure the node again for another robot"
            )
