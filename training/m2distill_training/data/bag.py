"""A recorded episode -> steps at the policy's rate, each what the policy would have seen then and what was commanded.

Observations come out of a PolicySession that is fed with the recorded messages, stamp by stamp, and ticks on a grid of
the spec's period that begins when every input has come once. It decodes, flips, resizes and orders as on the robot, and
where it would hold the arm, there is no step. In lockstep the grid is the simulator's own, so each step is the live
node's, bit for bit.

The action of a step is the newest twist stamped before the next step, back in [-1, 1] by the spec and the arm's gains,
or no motion when that is older than COMMAND_MAX_AGE_NS. The gripper's command, which has no stamp, is the newest one
recorded up to that twist; until the first one the fingers are taken to stay as they are.
"""

import dataclasses
import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from m2distill_policy import topics
from m2distill_policy.action import ActionSample, Hold, command_to_action
from m2distill_policy.arms import limits_of, preset
from m2distill_policy.errors import DataError, MessageError
from m2distill_policy.observation import Observation
from m2distill_policy.pictures import decode_compressed, decode_raw
from m2distill_policy.session import JOINTS, PolicySession
from m2distill_policy.spec import PolicySpec
from m2distill_policy.topics import COMMAND, Topic, image_topic
from m2distill_training.data.bag_file import EpisodeBag, stamp_of

COMMAND_MAX_AGE_NS = 250_000_000  # as the simulator's command_max_age_s
LATE_GRIPPER_NS = 5_000_000  # a gripper's command recorded so much after its twist was sent before it
STILL = 1e-3  # of an action: no motion

_JOINTS = Topic(topics.JOINTS, "sensor_msgs/msg/JointState", topics.SENSOR)
_TWIST = Topic(topics.TWIST, "geometry_msgs/msg/TwistStamped", COMMAND)
_GRIPPER = Topic(topics.GRIPPER, "std_msgs/msg/Float64", COMMAND)
_OPERATOR = Topic(topics.OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND)


@dataclass(frozen=True)
class Step:
    observation: Observation  # its stamp is that of its newest part
    action: np.ndarray  # (7,) float64 in [-1, 1]
    commanded: bool  # else nothing was, and the arm stood still
    clipped: bool  # the command was beyond [-1, 1]
    intervention: bool  # an operator had taken over


def resample(bag: EpisodeBag, spec: PolicySpec, arm: str) -> list[Step]:
    """Every step of the episode, idle ones too. Raises DataError."""
    commands = Commands(bag, spec, arm)
    steps: list[Step] = []
    for tick_ns, observation in observations(bag, spec):
        if not steps:
            commands.fingers_are(float(np.abs(observation.gripper).sum()))
        steps.append(commands.step(tick_ns, observation))
    if not any(step.commanded for step in steps):
        raise DataError(f"no {topics.TWIST} answers any observation; do the stamps of both come from one "
                        "clock (use_sim_time)?")
    return steps


def without_idleness(steps: list[Step]) -> list[Step]:
    """From the first step in which something is commanded to move, to the last. May be empty."""
    actions = np.array([step.action for step in steps])
    moves = np.abs(actions[:, :6]).max(axis=1) > STILL
    moves[1:] |= np.abs(np.diff(actions[:, 6])) > STILL
    busy = np.flatnonzero(moves)
    return steps[busy[0]:busy[-1] + 1] if len(busy) else []


class _Witness:
    """Stands where the policy stands, and remembers what it would see."""

    observation: Observation

    def reset(self) -> None: ...

    def set_text(self, embedding_L: np.ndarray) -> None: ...

    def step(self, observation: Observation) -> ActionSample:
        self.observation = observation
        return ActionSample(np.zeros(7, np.float32), 0, 0.0, 0.0)


def observations(bag: EpisodeBag, spec: PolicySpec) -> Iterator[tuple[int, Observation]]:
    """The time of each step, ns, and what the policy would see. Raises DataError where the episode is torn, or when the
    policy would never have acted."""
    joints = len(spec.joint_names)
    limits = dataclasses.replace(limits_of("libero_sim"), joint_lower_rad=(-math.inf,) * joints,
                                 joint_upper_rad=(math.inf,) * joints)
    witness = _Witness()
    session = PolicySession(spec, witness, {"any": np.zeros(1, np.float32)}, limits)
    session.set_instruction("any")
    inputs = {JOINTS: _JOINTS, **{camera.name: _camera_topic(bag, camera.name) for camera in spec.cameras}}
    feeds = (_feed(bag, name, topic) for name, topic in inputs.items())
    missing = set(inputs)
    tick_ns = stamp_ns = 0
    began_ns: int | None = None
    held: tuple[int, str] | None = None  # since when, and why

    def tick() -> Iterator[tuple[int, Observation]]:
        nonlocal held, began_ns
        if isinstance(outcome := session.tick(tick_ns), Hold):
            held = held or (tick_ns, outcome.reason)
            return
        if began_ns is None:
            began_ns, held = tick_ns, None
        if held:
            raise DataError(f"it is torn {(held[0] - began_ns) * 1e-9:.2f} s after its beginning: {held[1]}")
        yield tick_ns, witness.observation

    for stamp_ns, name, message in heapq.merge(*feeds, key=lambda fed: fed[0]):
        while not missing and tick_ns < stamp_ns:
            yield from tick()
            tick_ns += spec.period_ns
        _show(session, name, message, stamp_ns)
        if name in missing:
            missing.remove(name)
            tick_ns = stamp_ns
    if tick_ns == stamp_ns:
        yield from tick()
    if began_ns is None:
        raise DataError(f"it does not fit the spec: {held[1]}")


def _camera_topic(bag: EpisodeBag, camera: str) -> Topic:
    """Raw where there is such, else compressed."""
    compressed = image_topic(camera, compressed=True)
    raw = image_topic(camera, compressed=False)
    return compressed if not bag.find(raw) and bag.find(compressed) else raw


def _feed(bag: EpisodeBag, name: str, topic: Topic) -> Iterator[tuple[int, str, object]]:
    return ((stamp_ns, name, message) for stamp_ns, message in bag.stamped(topic))


def _show(session: PolicySession, name: str, message, stamp_ns: int) -> None:
    """As ros/inputs.py does with live messages."""
    if name == JOINTS:
        session.observe_joints(message.name, message.position, stamp_ns)
        return
    try:
        if hasattr(message, "format"):
            picture = decode_compressed(message.data, message.format)
        else:
            picture = decode_raw(message.encoding, message.height, message.width, message.step,
                                 bool(message.is_bigendian), message.data)
    except MessageError as error:
        session.reject_input(name, str(error))
    else:
        session.observe_image(name, picture, stamp_ns)


class Commands:
    """What the arm was told, asked step by step."""

    def __init__(self, bag: EpisodeBag, spec: PolicySpec, arm: str):
        settings = preset(arm)
        frame_id = settings.get("frame_id", spec.action.frame_id)
        stamps, times, twists = [], [], []
        for time_ns, message in bag.messages(bag.need(_TWIST)):
            if message.header.frame_id not in ("", frame_id):
                raise DataError(f"{topics.TWIST} is in the frame {message.header.frame_id!r}, expected "
                                f"{frame_id!r}")
            linear, angular = message.twist.linear, message.twist.angular
            stamps.append(stamp_of(message))
            times.append(time_ns)
            twists.append([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        order = np.argsort(stamps, kind="stable")
        self._stamps, self._times = np.array(stamps)[order], np.array(times)[order]
        self._twists = np.array(twists)[order]
        widths = [(time_ns, message.data) for time_ns, message in bag.messages(bag.need(_GRIPPER))]
        self._width_times, self._widths = np.array([t for t, _ in widths]), np.array([w for _, w in widths])
        if not (np.isfinite(self._twists).all() and np.isfinite(self._widths).all()):
            raise DataError(f"{topics.TWIST} or {topics.GRIPPER} is not finite")
        taken = [(time_ns, message.data) for time_ns, message in bag.messages(bag.find(_OPERATOR))]
        self._taken_times, self._taken = np.array([t for t, _ in taken]), [on for _, on in taken]
        self._spec = spec
        self._gains = np.repeat([limits_of(arm).linear_gain, limits_of(arm).angular_gain], 3)
        self._full = self._gains * np.repeat([spec.action.linear_scale_m, spec.action.angular_scale_rad],
                                             3) * spec.rate_hz

    def fingers_are(self, width_m: float) -> None:
        self._width_m = width_m

    def step(self, tick_ns: int, observation: Observation) -> Step:
        newest = int(np.searchsorted(self._stamps, tick_ns + self._spec.period_ns)) - 1
        commanded = newest >= 0 and tick_ns - self._stamps[newest] <= COMMAND_MAX_AGE_NS
        twist, intervention = np.zeros(6), False
        if commanded:
            twist, time_ns = self._twists[newest], self._times[newest] + LATE_GRIPPER_NS
            if gripper := int(np.searchsorted(self._width_times, time_ns, side="right")):
                self._width_m = self._widths[gripper - 1]
            if operator := int(np.searchsorted(self._taken_times, time_ns, side="right")):
                intervention = self._taken[operator - 1]
        scaled = twist / self._gains
        action = command_to_action(self._spec.action, self._spec.rate_hz, scaled[:3], scaled[3:], self._width_m)
        return Step(observation, action, commanded, bool((np.abs(twist) > self._full * (1 + 1e-9)).any()), intervention)
