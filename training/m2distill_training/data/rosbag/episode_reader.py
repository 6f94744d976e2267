"""Steps of a recorded episode at the policy's rate: what the policy observed or would have observed, and the command.

Observations come from a PolicySession that receives the recorded messages, stamp by stamp. It decodes, flips, resizes
and orders as on the robot. If a policy acted, it reported the stamps of its inputs, and those messages make the step:
its tensors are bit-identical to those of the live node. Otherwise the session ticks on a grid of the spec's period; if
it would hold the arm, there is no step.

The action of a step is the twist that the policy sent, or on the grid the newest one stamped before the next step,
converted to [-1, 1] by the spec and the arm's gains. It is no motion if that twist is older than COMMAND_MAX_AGE_NS.
The gripper's command has no stamp: it is the newest one recorded up to that twist, and before the first one the fingers
stay as they are.
"""

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2distill_policy.action import ActionSample, Hold, command_to_action
from m2distill_policy.control.session import JOINTS, PolicySession
from m2distill_policy.errors import DataError, MessageError
from m2distill_policy.observations.image_decoding import decode_compressed, decode_raw
from m2distill_policy.observations.observation import Observation
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode_topics import COMMAND, NO_TOPICS, Topic, image_topic, joints_topic
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_from_settings, limits_of
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.rosbag.bag_messages import EpisodeBag, stamp_of

COMMAND_MAX_AGE_NS = 250_000_000  # as the simulator's command_max_age_s
LATE_NS = 5_000_000  # what one node sent first may be recorded so much later
KEEP_NS = 1_000_000_000  # a policy acts on nothing older than this
STILL = 1e-3  # of an action: no motion

_TWIST = Topic(episode_topics.TWIST, "geometry_msgs/msg/TwistStamped", COMMAND)
_GRIPPER = Topic(episode_topics.GRIPPER, "std_msgs/msg/Float64", COMMAND)
_OPERATOR = Topic(episode_topics.OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND)
_ACTION = Topic(episode_topics.ACTION, "m2distill_interfaces/msg/PolicyAction", COMMAND)


@dataclass(frozen=True)
class Step:
    observation: Observation  # its stamp is that of its newest part
    action: np.ndarray  # (7,) float64 in [-1, 1]
    commanded: bool  # else nothing was, and the arm stood still
    clipped: bool  # the command was beyond [-1, 1]
    intervention: bool  # an operator had taken over


@dataclass(frozen=True)
class Tick:
    """Time of a step.

    `shown` and `sent_ns` are set if a policy acted: the stamps of its inputs, and the time of recording of its report.
    """

    stamp_ns: int  # not before those of its inputs
    shown: tuple[int, ...] = ()
    sent_ns: int = 0


def resample(bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]) -> list[Step]:
    """Return every step of the episode, idle ones too. Raises DataError."""
    commands = Commands(bag, spec, arm)
    steps: list[Step] = []
    topics = robot_from_settings(arm).topics
    for tick, observation in observations(bag, spec, limits_from_settings(arm).max_joint_speed_rad_s, topics):
        if not steps:
            commands.fingers_are(robot_from_settings(arm).opening_m(observation.gripper))
        steps.append(commands.step(tick, observation))
    if not any(step.commanded for step in steps):
        raise DataError(
            f"no {episode_topics.TWIST} answers any observation; do the stamps of both come from one "
            "clock (use_sim_time)?"
        )
    return steps


def without_idleness(steps: list[Step]) -> list[Step]:
    """Return the steps from the first to the last commanded motion; may be empty."""
    actions = np.array([step.action for step in steps])
    moves = np.abs(actions[:, :6]).max(axis=1) > STILL
    moves[1:] |= np.abs(np.diff(actions[:, 6])) > STILL
    busy = np.flatnonzero(moves)
    return steps[busy[0] : busy[-1] + 1] if len(busy) else []


class _Witness:
    """Reconstruction of the policy's inputs from the recorded messages."""

    observation: Observation

    def reset(self) -> None: ...

    def set_text(self, embedding_L: np.ndarray) -> None: ...

    def step(self, observation: Observation) -> ActionSample:
        self.observation = observation
        return ActionSample(np.zeros(7, np.float32), 0, 0.0, 0.0)


class _Ticks:
    """Return the ticks of the policy that acted, and a grid of the spec's period otherwise."""

    def __init__(self, period_ns: int, acted: Sequence[Tick]):
        self._period_ns, self._acted = period_ns, deque(acted)

    def begin(self, stamp_ns: int) -> None:
        """Return True if every input has been received once."""
        self._last_ns = stamp_ns - self._period_ns

    def next(self) -> Tick:
        grid_ns = self._last_ns + self._period_ns
        if self._acted and self._acted[0].stamp_ns <= grid_ns + self._period_ns // 2:
            return self._acted[0]
        return Tick(grid_ns)

    def took(self, tick: Tick) -> None:
        self.drop(tick)
        self._last_ns = tick.stamp_ns

    def drop(self, tick: Tick) -> None:
        if tick.shown:
            self._acted.popleft()


def _acted(bag: EpisodeBag, inputs: int) -> list[Tick]:
    """Return the ticks of a policy with that many inputs, in order; none in bags without its reports."""
    ticks = []
    for time_ns, message in bag.messages(bag.find(_ACTION)):
        shown = tuple(stamp.sec * 10**9 + stamp.nanosec for stamp in getattr(message, "input_stamps", ())[:inputs])
        if len(shown) == inputs:
            ticks.append(Tick(max(shown), shown, time_ns))
    return sorted(ticks, key=lambda tick: (tick.stamp_ns, tick.sent_ns))


def observations(
    bag: EpisodeBag, spec: PolicySpec, max_joint_speed_rad_s: float, topics: Mapping[str, str] = NO_TOPICS
) -> Iterator[tuple[Tick, Observation]]:
    """Yield the policy's observation step by step. A joint faster than the limit is a gap, as live it is a hold.

    Raises DataError if the observations have a gap, or if the policy would never have acted.
    """
    witness = _Witness()
    session = _unlimited_session(spec, witness, max_joint_speed_rad_s)
    topic_of = {JOINTS: joints_topic(topics), **_camera_topics(bag, spec, topics)}
    streams = {stream.name: stream for stream in session.streams}  # in the order of Tick.shown
    recent: dict[str, deque[tuple[int, object]]] = {name: deque() for name in streams}
    ticks = _Ticks(spec.period_ns, _acted(bag, len(streams)))
    missing = set(streams)
    stamp_ns = 0
    began_ns: int | None = None
    held: tuple[int, str] | None = None  # since when, and why

    def take(tick: Tick) -> Iterator[tuple[Tick, Observation]]:
        nonlocal held, began_ns
        if tick.shown:
            if (observation := _shown(tick, recent)) is None:
                ticks.drop(tick)
                return
        elif isinstance(outcome := session.tick(tick.stamp_ns), Hold):
            ticks.took(tick)
            held = held or (tick.stamp_ns, outcome.reason)
            return
        else:
            observation = witness.observation
        ticks.took(tick)
        if began_ns is None:
            began_ns, held = tick.stamp_ns, None
        if held:
            raise DataError(f"observation gap {(held[0] - began_ns) * 1e-9:.2f} s after start: {held[1]}")
        yield tick, observation

    for stamp_ns, name, message in heapq.merge(
        *(_feed(bag, *item) for item in topic_of.items()), key=lambda fed: fed[0]
    ):
        while not missing and (tick := ticks.next()).stamp_ns < stamp_ns:
            yield from take(tick)
        _show(session, name, message, stamp_ns)
        if streams[name].value is not None:
            recent[name].append((streams[name].stamp_ns, streams[name].value))
        while recent[name] and recent[name][0][0] < stamp_ns - KEEP_NS:
            recent[name].popleft()
        if name in missing:
            missing.remove(name)
            ticks.begin(stamp_ns)
    if missing:
        raise DataError(f"nothing came on {', '.join(sorted(missing))}")
    while (tick := ticks.next()).stamp_ns <= stamp_ns:
        yield from take(tick)
    if began_ns is None:
        assert held is not None  # or it had begun
        raise DataError(f"it does not fit the spec: {held[1]}")


def _shown(tick: Tick, recent: dict[str, deque[tuple[int, object]]]) -> Observation | None:
    """Return the observation of a policy that acted; None if the bag lacks a part of it."""
    values: dict[str, Any] = {
        name: value
        for (name, received), shown_ns in zip(recent.items(), tick.shown, strict=True)
        for stamp_ns, value in received
        if stamp_ns == shown_ns
    }
    if len(values) < len(recent):
        return None
    joint, gripper = values.pop(JOINTS)
    return Observation(values, joint, gripper, tick.stamp_ns)


def _unlimited_session(spec: PolicySpec, witness: _Witness, max_joint_speed_rad_s: float) -> PolicySession:
    """Return a session without joint limits that follows an instruction."""
    joints = len(spec.joint_names)
    limits = dataclasses.replace(
        limits_of("libero_sim"),
        joint_lower_rad=(-math.inf,) * joints,
        joint_upper_rad=(math.inf,) * joints,
        max_joint_speed_rad_s=max_joint_speed_rad_s,
    )
    session = PolicySession(spec, witness, {"any": np.zeros(1, np.float32)}, limits)
    session.set_instruction("any")
    return session


def _camera_topics(bag: EpisodeBag, spec: PolicySpec, topics: Mapping[str, str]) -> dict[str, Topic]:
    """Return each camera's raw image topic if there is one, otherwise the compressed one.

    `topics` are the robot's own names, as `Robot.topics`.
    """
    found = {}
    for camera in spec.cameras:
        raw, compressed = (image_topic(camera.name, kind, topics) for kind in (False, True))
        found[camera.name] = compressed if not bag.find(raw) and bag.find(compressed) else raw
    return found


def _feed(bag: EpisodeBag, name: str, topic: Topic) -> Iterator[tuple[int, str, object]]:
    return ((stamp_ns, name, message) for stamp_ns, message in bag.stamped(topic))


def _show(session: PolicySession, name: str, message, stamp_ns: int) -> None:
    """Decode as ros/policy/inputs.py does with live messages."""
    if name == JOINTS:
        session.observe_joints(message.name, message.position, stamp_ns)
        return
    try:
        if hasattr(message, "format"):
            image = decode_compressed(message.data, message.format)
        else:
            image = decode_raw(
                message.encoding, message.height, message.width, message.step, bool(message.is_bigendian), message.data
            )
    except MessageError as error:
        session.reject_input(name, str(error))
    else:
        session.observe_image(name, image, stamp_ns)


class Commands:
    """Commands of the arm, read step by step."""

    def __init__(self, bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]):
        frame_id = arm.get("frame_id") or spec.action.frame_id
        stamps, times, twists = [], [], []
        for time_ns, message in bag.messages(bag.need(_TWIST)):
            if message.header.frame_id not in ("", frame_id):
                raise DataError(
                    f"{episode_topics.TWIST} is in the frame {message.header.frame_id!r}, expected {frame_id!r}"
                )
            linear, angular = message.twist.linear, message.twist.angular
            stamps.append(stamp_of(message))
            times.append(time_ns)
            twists.append([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        order = np.argsort(stamps, kind="stable")
        self._stamps, self._times = np.array(stamps)[order], np.array(times)[order]
        self._twists = np.array(twists)[order]
        has_gripper = arm.get("gripper_output") != "none"
        found = bag.need(_GRIPPER) if has_gripper else []
        widths = [(time_ns, message.data) for time_ns, message in bag.messages(found)]
        self._width_times, self._widths = np.array([t for t, _ in widths]), np.array([w for _, w in widths])
        if not (np.isfinite(self._twists).all() and np.isfinite(self._widths).all()):
            raise DataError(f"{episode_topics.TWIST} or {episode_topics.GRIPPER} is not finite")
        taken = [(time_ns, message.data) for time_ns, message in bag.messages(bag.find(_OPERATOR))]
        self._taken_times, self._taken = np.array([t for t, _ in taken]), [on for _, on in taken]
        self._spec, self._late_ns = spec, 0 if bag.labels else LATE_NS  # the recorder notes when it was sent
        limits = limits_from_settings(arm)
        self._gains = np.repeat([limits.linear_gain, limits.angular_gain], 3)
        if not self._gains.all():
            raise DataError("a gain of the arm is 0, so no command has an action; name another --arm")
        self._full = (
            self._gains * np.repeat([spec.action.linear_scale_m, spec.action.angular_scale_rad], 3) * spec.rate_hz
        )

    def fingers_are(self, width_m: float) -> None:
        self._width_m = width_m

    def step(self, tick: Tick, observation: Observation) -> Step:
        place = self._twist_of(tick)
        commanded = place >= 0 and tick.stamp_ns - self._stamps[place] <= COMMAND_MAX_AGE_NS
        twist, intervention = np.zeros(6), False
        if commanded:
            twist, time_ns = self._twists[place], self._times[place] + LATE_NS
            if gripper := int(np.searchsorted(self._width_times, time_ns, side="right")):
                self._width_m = self._widths[gripper - 1]
            if operator := int(np.searchsorted(self._taken_times, time_ns, side="right")):
                intervention = self._taken[operator - 1]
        scaled = twist / self._gains
        action = command_to_action(self._spec.action, self._spec.rate_hz, scaled[:3], scaled[3:], self._width_m)
        return Step(observation, action, commanded, bool((np.abs(twist) > self._full * (1 + 1e-9)).any()), intervention)

    def _twist_of(self, tick: Tick) -> int:
        """Return the index of the twist that a step uses, -1 if there is none."""
        if tick.shown:
            before = np.flatnonzero(self._times <= tick.sent_ns + self._late_ns)
            return int(before[self._times[before].argmax()]) if len(before) else -1
        return int(np.searchsorted(self._stamps, tick.stamp_ns + self._spec.period_ns)) - 1
