"""Steps of a recorded episode at the policy's rate: what the policy observed or would have observed, and the command.

Observations come from a PolicySession that receives the recorded messages, stamp by stamp. It decodes, flips, resizes
and orders as on the robot. If a policy acted, it reported the stamps of its inputs, and those messages make the step:
its tensors are bit-identical to those of the live node. Otherwise the session ticks on a grid of the spec's period; if
it would hold the arm, there is no step. The actions of the steps are in commands.py.
"""

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from m2distill_policy.action import ActionSample, Hold
from m2distill_policy.control.session import JOINTS, POSE, PolicySession, arm_observation
from m2distill_policy.errors import DataError, MessageError
from m2distill_policy.observations.image_decoding import decode_compressed, decode_raw
from m2distill_policy.observations.observation import Observation
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode_topics import COMMAND, TARGET, Topic, image_topic, joints_topic, pose_topic
from m2distill_policy.robot import pose_frame, robot_from_settings
from m2distill_policy.safety.arm_presets import limits_from_settings, limits_of
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.rosbag.bag_messages import EpisodeBag
from m2distill_training.data.rosbag.commands import Commands, motion_topics
from m2distill_training.data.rosbag.steps import Moment, Step, Tick

KEEP_NS = 1_000_000_000  # a policy acts on nothing older than this
STILL = 1e-3  # of an action: no motion

_ACTION = Topic(episode_topics.ACTION, "m2distill_interfaces/msg/PolicyAction", COMMAND)


def resample(bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]) -> list[Step]:
    """Return every step of the episode, idle ones too. Raises DataError."""
    commands = Commands(bag, spec, arm)
    steps: list[Step] = []
    for moment in moments(bag, spec, arm):
        if not steps:
            commands.fingers_are(robot_from_settings(arm).opening_m(moment.observation.gripper))
        steps.append(commands.step(moment))
    if not any(step.commanded for step in steps):
        raise DataError(
            f"no {commands.names} answers any observation; do the stamps of both come from one clock (use_sim_time)?"
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


def _acted(bag: EpisodeBag, spec: PolicySpec, inputs: int) -> list[Tick]:
    """Return the ticks of a policy with that many inputs, in order; none in bags without its reports.

    A policy that observed the joints has its inputs in another order than one that observes the hand.
    """
    if "spec" in bag.labels and PolicySpec.from_json(bag.labels["spec"]).observes_hand != spec.observes_hand:
        return []
    ticks = []
    for time_ns, message in bag.messages(bag.find(_ACTION)):
        shown = tuple(stamp.sec * 10**9 + stamp.nanosec for stamp in getattr(message, "input_stamps", ())[:inputs])
        if len(shown) == inputs:
            ticks.append(Tick(max(shown), shown, time_ns))
    return sorted(ticks, key=lambda tick: (tick.stamp_ns, tick.sent_ns))


def moments(bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]) -> Iterator[Moment]:
    """Yield the policy's observation step by step. A joint faster than the limit is a gap, as live it is a hold.

    Raises DataError if the observations have a gap, or if the policy would never have acted.
    """
    witness = _Witness()
    use_pose = TARGET in (topic.name for topic in motion_topics(bag, arm))
    session = _unlimited_session(spec, witness, limits_from_settings(arm).max_joint_speed_rad_s, use_pose)
    topics = robot_from_settings(arm).topics
    known = {JOINTS: joints_topic(topics), POSE: pose_topic(topics), **_camera_topics(bag, spec, topics)}
    streams = {stream.name: stream for stream in session.streams}  # in the order of Tick.shown
    topic_of = {name: known[name] for name in streams}
    frame_id = arm.get("base_frame") or pose_frame(spec, arm.get("frame_id") or spec.action.frame_id, use_pose)
    recent: dict[str, deque[tuple[int, object]]] = {name: deque() for name in streams}
    ticks = _Ticks(spec.period_ns, _acted(bag, spec, len(streams)))
    missing = set(streams)
    stamp_ns = 0
    began_ns: int | None = None
    held: tuple[int, str] | None = None  # since when, and why

    def take(tick: Tick) -> Iterator[Moment]:
        nonlocal held, began_ns
        if tick.shown:
            if (moment := _shown(tick, recent, spec)) is None:
                ticks.drop(tick)
                return
        elif isinstance(outcome := session.tick(tick.stamp_ns), Hold):
            ticks.took(tick)
            held = held or (tick.stamp_ns, outcome.reason)
            return
        else:
            moment = Moment(tick, witness.observation, session.pose)
        ticks.took(tick)
        if began_ns is None:
            began_ns, held = tick.stamp_ns, None
        if held:
            raise DataError(f"observation gap {(held[0] - began_ns) * 1e-9:.2f} s after start: {held[1]}")
        yield moment

    for stamp_ns, name, message in heapq.merge(
        *(_feed(bag, *item) for item in topic_of.items()), key=lambda fed: fed[0]
    ):
        while not missing and (tick := ticks.next()).stamp_ns < stamp_ns:
            yield from take(tick)
        _show(session, name, message, stamp_ns, frame_id)
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


def _shown(tick: Tick, recent: dict[str, deque[tuple[int, object]]], spec: PolicySpec) -> Moment | None:
    """Return the moment of a policy that acted; None if the bag lacks a part of it."""
    values: dict[str, Any] = {
        name: value
        for (name, received), shown_ns in zip(recent.items(), tick.shown, strict=True)
        for stamp_ns, value in received
        if stamp_ns == shown_ns
    }
    if len(values) < len(recent):
        return None
    joints, pose = values.pop(JOINTS, None), values.pop(POSE, None)
    return Moment(tick, arm_observation(spec, values, joints, pose, tick.stamp_ns), pose)


def _unlimited_session(
    spec: PolicySpec, witness: _Witness, max_joint_speed_rad_s: float, use_pose: bool
) -> PolicySession:
    """Return a session without joint limits that follows an instruction."""
    joints = 0 if spec.observes_hand else len(spec.joint_names)
    limits = dataclasses.replace(
        limits_of("libero_sim"),
        joint_lower_rad=(-math.inf,) * joints,
        joint_upper_rad=(math.inf,) * joints,
        max_joint_speed_rad_s=max_joint_speed_rad_s,
    )
    session = PolicySession(spec, witness, {"any": np.zeros(1, np.float32)}, limits, use_pose)
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


def _show(session: PolicySession, name: str, message, stamp_ns: int, pose_frame_id: str) -> None:
    """Decode as ros/policy/inputs.py does with live messages."""
    if name == JOINTS:
        session.observe_joints(message.name, message.position, stamp_ns)
        return
    if name == POSE:
        position, quat = message.pose.position, message.pose.orientation
        if message.header.frame_id != pose_frame_id:
            session.reject_input(POSE, f"is in the frame {message.header.frame_id!r}, expected {pose_frame_id!r}")
        else:
            session.observe_pose((position.x, position.y, position.z), (quat.x, quat.y, quat.z, quat.w), stamp_ns)
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
