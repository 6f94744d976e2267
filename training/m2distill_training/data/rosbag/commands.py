"""Commands of an arm in a bag, read step by step, as actions.

The action of a step is the command that the policy sent, or on the grid the newest one stamped before the next step,
converted to [-1, 1] by the spec and the arm's gains. It is no motion if that command is older than COMMAND_MAX_AGE_NS.
A velocity is the command itself. A target pose commands the way to it from the pose that was measured at the step, as
the policy node sends it. A velocity without a stamp (an array) gets one from the time of recording, by the clock of the
observations.

The gripper's command has no stamp either: it is the newest one recorded up to that command, and before the first one
the fingers stay as they are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from m2distill_policy.action import command_to_action
from m2distill_policy.errors import DataError
from m2distill_policy.observations.poses import Pose, difference
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode_topics import COMMAND, MOTIONS, TARGET, TWIST, VELOCITY, Topic
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_from_settings, output_from_settings
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.rosbag.bag_messages import EpisodeBag, stamp_of
from m2distill_training.data.rosbag.steps import Moment, Step

COMMAND_MAX_AGE_NS = 250_000_000  # as the simulator's command_max_age_s
LATE_NS = 5_000_000  # what one node sent first may be recorded so much later

_GRIPPER = Topic(episode_topics.GRIPPER, "std_msgs/msg/Float64", COMMAND)
_OPERATOR = Topic(episode_topics.OPERATOR_ACTIVE, "std_msgs/msg/Bool", COMMAND)


def motion_topics(bag: EpisodeBag, arm: Mapping[str, Any]) -> list[Topic]:
    """Return the topics on which the arm was commanded: that of its output, and the twists of an operator.

    Raises DataError if the bag has neither.
    """
    own = MOTIONS[output_from_settings(arm).output]
    found = [topic for topic in dict.fromkeys((own, MOTIONS["twist"])) if bag.find(topic)]
    for output, topic in () if found else MOTIONS.items():
        if bag.find(topic):
            raise DataError(
                f"it has no message on {own.name}, the commands of this arm, but on {topic.name}; name an arm file "
                f"with `output: {output}` with --arm"
            )
    if not found:
        bag.need(own)
    return found


class Commands:
    """Commands of the arm, read step by step.

    Args:
        bag: The episode.
        spec: Spec of the policy.
        arm: Settings of the arm.
    """

    def __init__(self, bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]):
        self._read_motions(bag, spec, arm)
        has_gripper = arm.get("gripper_output") != "none"
        found = bag.need(_GRIPPER) if has_gripper else []
        widths = [(time_ns, message.data) for time_ns, message in bag.messages(found)]
        self._width_times, self._widths = np.array([t for t, _ in widths]), np.array([w for _, w in widths])
        if not (np.isfinite(self._values).all() and np.isfinite(self._widths).all()):
            raise DataError(f"{self.names} or {episode_topics.GRIPPER} is not finite")
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

    def _read_motions(self, bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any]) -> None:
        frame_id = arm.get("frame_id") or spec.action.frame_id
        topics = motion_topics(bag, arm)
        self.names = " or ".join(topic.name for topic in topics)
        stamps: list[int | None] = []
        times, poses, values = [], [], []
        for topic in topics:
            for time_ns, message in bag.messages(bag.find(topic)):
                if topic.name != VELOCITY and message.header.frame_id not in ("", frame_id):
                    raise DataError(f"{topic.name} is in the frame {message.header.frame_id!r}, expected {frame_id!r}")
                stamps.append(None if topic.name == VELOCITY else stamp_of(message))
                times.append(time_ns)
                poses.append(topic.name == TARGET)
                values.append(_VALUES[topic.name](message))
        known = _with_stamps(bag, stamps, times, robot_from_settings(arm).topics)
        order = np.argsort(known, kind="stable")
        self._stamps, self._times = np.array(known)[order], np.array(times)[order]
        self._is_pose, self._values = np.array(poses)[order], np.array(values, np.float64)[order]
        lengths = np.linalg.norm(self._values[self._is_pose, 3:], axis=1)
        if len(bad := lengths[np.abs(lengths - 1.0) > 1e-3]):
            raise DataError(f"{TARGET} has a quaternion of length {bad[0]:g}, expected 1")

    def fingers_are(self, width_m: float) -> None:
        self._width_m = width_m

    def step(self, moment: Moment) -> Step:
        """Return the step of a moment."""
        tick = moment.tick
        place = self._place_of(moment)
        commanded = place >= 0 and tick.stamp_ns - self._stamps[place] <= COMMAND_MAX_AGE_NS
        twist, intervention = np.zeros(6), False
        if commanded:
            twist, time_ns = self._velocity(place, moment.pose), self._times[place] + LATE_NS
            if gripper := int(np.searchsorted(self._width_times, time_ns, side="right")):
                self._width_m = self._widths[gripper - 1]
            if operator := int(np.searchsorted(self._taken_times, time_ns, side="right")):
                intervention = self._taken[operator - 1]
        scaled = twist / self._gains
        action = command_to_action(self._spec.action, self._spec.rate_hz, scaled[:3], scaled[3:], self._width_m)
        clipped = bool((np.abs(twist) > self._full * (1 + 1e-9)).any())
        return Step(moment.observation, action, commanded, clipped, intervention)

    def _velocity(self, place: int, measured: Pose | None) -> np.ndarray:
        """Return a command in m/s and rad/s (6,)."""
        values = self._values[place]
        if not self._is_pose[place]:
            return values[:6]
        assert measured is not None  # the bag has target poses, so the pose is an input
        target = Pose(values[:3], values[3:] / np.linalg.norm(values[3:]))
        return difference(measured, target) * self._spec.rate_hz

    def _place_of(self, moment: Moment) -> int:
        """Return the index of the command that a step uses, -1 if there is none."""
        tick = moment.tick
        if tick.shown:
            before = np.flatnonzero(self._times <= tick.sent_ns + self._late_ns)
            return int(before[self._times[before].argmax()]) if len(before) else -1
        return int(np.searchsorted(self._stamps, tick.stamp_ns + self._spec.period_ns)) - 1


def _of_twist(message: Any) -> list[float]:
    linear, angular = message.twist.linear, message.twist.angular
    return [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z, 0.0]


def _of_pose(message: Any) -> list[float]:
    position, quat = message.pose.position, message.pose.orientation
    return [position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w]


def _of_array(message: Any) -> list[float]:
    if len(message.data) != 6:
        raise DataError(f"{VELOCITY} has {len(message.data)} numbers, expected 6: m/s and rad/s")
    return [*map(float, message.data), 0.0]


_VALUES = {TWIST: _of_twist, TARGET: _of_pose, VELOCITY: _of_array}


def _with_stamps(bag: EpisodeBag, stamps: list[int | None], times: list[int], topics: Mapping[str, str]) -> list[int]:
    """Return the stamps, and for a message without one the time of its recording by the clock of the observations."""
    if None not in stamps:
        return [stamp for stamp in stamps if stamp is not None]
    clocks = [
        (time_ns, stamp_of(message) - time_ns)
        for topic in (episode_topics.joints_topic(topics), episode_topics.pose_topic(topics))
        for time_ns, message in bag.messages(bag.find(topic))
    ]
    if not clocks:
        raise DataError(
            f"{VELOCITY} has no stamps, and neither joint_states nor ee_pose gives the time of the observations"
        )
    clocks.sort()
    since = np.array([time_ns - clocks[0][0] for time_ns, _ in clocks], np.float64)
    offsets = np.array([offset_ns - clocks[0][1] for _, offset_ns in clocks], np.float64)

    def stamp(time_ns: int) -> int:
        return time_ns + clocks[0][1] + int(np.interp(time_ns - clocks[0][0], since, offsets))

    return [stamp(time_ns) if known is None else known for known, time_ns in zip(stamps, times, strict=True)]
