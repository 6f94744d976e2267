"""PolicySession: the control loop without a clock, without ROS and without torch.

The owner feeds it observations with their stamps and asks once a control period what to do. The answer is a Command
that answers the newest complete observation, or a Hold with the reason. It never guesses a missing input.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from m2distill_policy.action import ActionSample, Command, Hold, sample_to_command
from m2distill_policy.errors import SpecError, UserError
from m2distill_policy.observation import Observation, order_joints, prepare_image
from m2distill_policy.safety import SafetyLimits, limit_speed, why_unsafe
from m2distill_policy.spec import PolicySpec
from m2distill_policy.stream import Stream


class StepPolicy(Protocol):
    """A policy that acts one step at a time and remembers its own history (inference.LoadedPolicy is one)."""

    def reset(self) -> None: ...
    def set_text(self, embedding_L: np.ndarray) -> None: ...
    def step(self, observation: Observation) -> ActionSample: ...


class PolicySession:
    """One policy driving one robot.

    `instructions` maps each instruction the checkpoint knows to its sentence embedding (L,) float32.
    """

    def __init__(self, spec: PolicySpec, policy: StepPolicy, instructions: Mapping[str, np.ndarray],
                 limits: SafetyLimits = SafetyLimits()):
        self.spec = spec
        self.limits = limits
        self.instruction = ""
        self.fault = ""
        self._policy = policy
        self._embeddings = {normalise(text): (text, embedding) for text, embedding in instructions.items()}
        self._cameras = {c.name: Stream(c.name, limits.max_age_ns, limits.max_lead_ns) for c in spec.cameras}
        self._joints = Stream("joint_states", limits.max_age_ns, limits.max_lead_ns)
        self._history_broken = True

    @property
    def streams(self) -> list[Stream]:
        return [*self._cameras.values(), self._joints]

    def set_instruction(self, text: str) -> None:
        """Start on an instruction with an empty history. One that is not known raises UserError and stops the arm."""
        known = self._embeddings.get(normalise(text))
        if known is None:
            self.stop()
            names = "; ".join(sorted(original for original, _ in self._embeddings.values()))
            raise UserError(f"unknown instruction {text!r}; known: {names}")
        self.instruction, embedding = known
        self._policy.set_text(embedding)
        self._history_broken = True

    def stop(self) -> None:
        """Forget the instruction; every tick holds until the next one."""
        self.instruction = ""
        self._history_broken = True

    def reset(self) -> None:
        """Forget all observations and the policy's history; the instruction stays."""
        for stream in self.streams:
            stream.clear()
        self._history_broken = True

    def reset_fault(self) -> None:
        self.fault = ""

    def observe_image(self, camera: str, image_HWC: np.ndarray, stamp_ns: int) -> None:
        """Take an upright HWC uint8 RGB picture. A malformed one makes the arm hold until a good one comes."""
        stream = self._cameras[camera]
        try:
            stream.accept(prepare_image(image_HWC, self.spec.camera(camera)), stamp_ns)
        except SpecError as error:
            stream.reject(str(error))

    def observe_joints(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> None:
        """Take joint positions by name (rad; fingers m). Malformed ones make the arm hold until good ones come."""
        try:
            self._joints.accept(order_joints(self.spec, names, positions), stamp_ns)
        except SpecError as error:
            self._joints.reject(str(error))

    def reject_input(self, name: str, reason: str) -> None:
        """A message on input `name` (a camera, or `joint_states`) could not even be decoded."""
        stream = self._cameras.get(name, self._joints)
        stream.reject(f"{name}: {reason}")

    def tick(self, now_ns: int) -> Command | Hold:
        """What to do now. A history with a gap in it is never acted on: after any Hold the policy starts afresh."""
        reason = self._why_hold(now_ns)
        if reason:
            self._history_broken = True
            return Hold(reason)
        if self._history_broken:
            self._policy.reset()
            self._history_broken = False
        observation = self._observation()
        sample = self._policy.step(observation)
        self.fault = why_unsafe(sample)
        if self.fault:
            self._history_broken = True
            return Hold(self.fault)
        return limit_speed(sample_to_command(self.spec, sample, observation.stamp_ns), self.limits)

    def _why_hold(self, now_ns: int) -> str:
        if self.fault:
            return self.fault
        if not self.instruction:
            return "no instruction"
        for stream in self.streams:
            if reason := stream.why_unusable(now_ns):
                return reason
        stamps = {s.name: s.stamp_ns for s in self.streams}
        skew_ns = max(stamps.values()) - min(stamps.values())
        if skew_ns > self.limits.max_skew_ns:
            oldest, newest = min(stamps, key=stamps.get), max(stamps, key=stamps.get)
            return (f"{oldest} is {skew_ns / 1e6:.0f} ms older than {newest}, "
                    f"limit {self.limits.max_skew_ns / 1e6:.0f} ms")
        return ""

    def _observation(self) -> Observation:
        joint, gripper = self._joints.value
        images = {name: stream.value for name, stream in self._cameras.items()}
        return Observation(images, joint, gripper, stamp_ns=max(s.stamp_ns for s in self.streams))


def normalise(instruction: str) -> str:
    """Case, outer white space, inner runs of white space and a final full stop do not change an instruction."""
    return " ".join(instruction.casefold().split()).rstrip(".").rstrip()
