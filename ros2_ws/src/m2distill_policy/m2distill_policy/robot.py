"""Description of a robot in its arm file: joints, gripper, cameras, topics, rate and scale of an action.

An arm file that names its joints, and its cameras or its gripper, describes a whole robot. The recorder and the import
derive a PolicySpec from it, so no checkpoint is needed to record the first demonstrations. Every checkpoint that is
used with the file is compared with it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from m2distill_policy.cameras import CAMERA_NAMES, MAX_CAMERAS
from m2distill_policy.errors import SpecError, UserError
from m2distill_policy.observations.image_fit import FITS
from m2distill_policy.spec import (
    HAND_DOWN,
    HAND_POSE,
    PANDA_JOINTS,
    STATES,
    ActionSpec,
    CameraSpec,
    PolicySpec,
    libero_spec,
)
from m2distill_policy.utils.parameters import parameter

JOINT_STATES, EE_POSE = "joint_states", "ee_pose"
SAME = ("joint_names", "gripper_joint_names", "gripper_joint_signs", "rate_hz", "action")  # of one robot's specs
HAND = ("hand_frame_id", "hand_reference")  # of one robot's specs if they observe the hand


@dataclass(frozen=True)
class RobotParameters:
    """Keys of an arm file that describe the robot. They are no parameters of a node."""

    cameras: tuple[str, ...] = parameter(
        (), "names of the cameras, 1 to 16, in the order of the policy's inputs; empty: agentview and wrist"
    )
    camera_topics: tuple[str, ...] = parameter(
        (), "their topics of sensor_msgs/Image, in the same order; empty: <camera>/image_raw"
    )
    image_fit: str = parameter(
        FITS[0],
        "images of another aspect ratio than the policy's: centre_crop cuts off both ends, pad adds black borders, "
        "reject holds the arm",
        choices=FITS,
    )
    image_px: int = parameter(
        128, "side of the square images in recorded demonstrations, in pixels", at_least=8, at_most=1024
    )
    joint_states_topic: str = parameter(JOINT_STATES, "topic of the joint states")
    ee_pose_topic: str = parameter(EE_POSE, "topic of the hand's pose")
    state: str = parameter(
        STATES[0],
        "what demonstrations record of the arm: its joints, or in place of them the pose of its hand in frame_id",
        choices=STATES,
    )
    hand_reference: tuple[float, ...] = parameter(
        HAND_DOWN,
        "orientation of the hand, as a quaternion x, y, z, w, from which demonstrations turn less than half a turn; "
        "with state hand. The default points down, as a Panda's hand at work",
    )
    gripper_joint_names: tuple[str, ...] = parameter((), "joints of the gripper in joint_states; empty: none")
    gripper_joint_signs: tuple[float, ...] = parameter(
        (), "1 or -1 for each of them, a factor on its position; empty: 1"
    )
    gripper_joint_open: tuple[float, ...] = parameter(
        (), "position of each of them when the gripper is open; empty: each is a finger whose position is its travel"
    )
    gripper_joint_closed: tuple[float, ...] = parameter((), "position of each of them when the gripper is closed")
    gripper_open_width_m: float = parameter(0.08, "opening of the open gripper, in m", at_least=0.001, at_most=1.0)
    rate_hz: float = parameter(20.0, "control rate of the policy, in Hz", at_least=1.0, at_most=200.0)
    linear_scale_m: float = parameter(
        0.05, "translation per step of a full action, before the gain, in m", at_least=1e-4, at_most=1.0
    )
    angular_scale_rad: float = parameter(
        0.5, "rotation per step of a full action, before the gain, in rad", at_least=1e-4, at_most=3.0
    )

    def __post_init__(self):
        _require_lengths("cameras", self.cameras, camera_topics=self.camera_topics)
        _require_lengths(
            "gripper_joint_names",
            self.gripper_joint_names,
            gripper_joint_signs=self.gripper_joint_signs,
            gripper_joint_open=self.gripper_joint_open,
            gripper_joint_closed=self.gripper_joint_closed,
        )
        if len(self.cameras) > MAX_CAMERAS:
            raise UserError(f"cameras has {len(self.cameras)} names, allowed up to {MAX_CAMERAS}")
        if wrong := [name for name in self.cameras if not name.isidentifier()]:
            raise UserError(f"cameras has {wrong[0]!r}, expected letters, digits and underscores; rename the camera")
        if bad := [sign for sign in self.gripper_joint_signs if sign not in (1.0, -1.0)]:
            raise UserError(f"gripper_joint_signs has {bad[0]:g}, allowed 1 and -1")
        if bool(self.gripper_joint_open) != bool(self.gripper_joint_closed):
            raise UserError("gripper_joint_open and gripper_joint_closed belong together; write both or neither")
        if any(a == b for a, b in zip(self.gripper_joint_open, self.gripper_joint_closed, strict=True)):
            raise UserError(
                f"gripper_joint_open {list(self.gripper_joint_open)} and gripper_joint_closed "
                f"{list(self.gripper_joint_closed)} have an equal position; expected two different ones for each joint"
            )


@dataclass(frozen=True)
class Robot:
    """The robot that the settings of an arm describe, as far as they do."""

    parameters: RobotParameters
    joint_names: tuple[str, ...]
    frame_id: str
    given: frozenset[str]  # keys that the file has

    @property
    def described(self) -> bool:
        """Whether the file describes a whole robot, and not only limits and outputs of an arm."""
        views = self.parameters.cameras or self.parameters.gripper_joint_names
        return bool((self.joint_names or self.observes_hand) and views)

    @property
    def observes_hand(self) -> bool:
        """Whether demonstrations record the pose of the hand in place of the joints."""
        return self.parameters.state == STATES[1]

    @property
    def topics(self) -> dict[str, str]:
        """Topics that differ from the interface's: by `joint_states`, `ee_pose` and `<camera>/image_raw`."""
        p = self.parameters
        images = dict(zip(p.cameras, p.camera_topics, strict=bool(p.camera_topics)))
        renamed = {f"{name}/image_raw": topic for name, topic in images.items()}
        states = {JOINT_STATES: p.joint_states_topic, EE_POSE: p.ee_pose_topic}
        return renamed | {name: topic for name, topic in states.items() if topic != name}

    def spec(self) -> PolicySpec:
        """Return the spec of this robot's demonstrations. Raises UserError if the file does not describe it."""
        p = self.parameters
        needed = {
            "cameras": p.cameras or p.gripper_joint_names,
            "joint_names": self.joint_names or self.observes_hand,
            "frame_id": self.frame_id,
        }
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise UserError(
                f"the arm has no {' and no '.join(missing)}; add them to the arm file, or give a checkpoint, "
                "whose spec names what to record"
            )
        try:
            cameras = p.cameras or CAMERA_NAMES
            return PolicySpec(
                tuple(CameraSpec(name, p.image_px, p.image_px, True, p.image_fit) for name in cameras),
                HAND_POSE if self.observes_hand else self.joint_names,
                p.gripper_joint_names,
                self._signs,
                rate_hz=p.rate_hz,
                action=ActionSpec(p.linear_scale_m, p.angular_scale_rad, p.gripper_open_width_m, self.frame_id),
                text_encoder="none",
                text_width=1,
                hand_frame_id=self.frame_id,
                hand_reference=p.hand_reference,
            )
        except SpecError as error:
            raise UserError(f"the arm file describes no possible robot: {error}") from None

    @property
    def _signs(self) -> tuple[float, ...]:
        return self.parameters.gripper_joint_signs or (1.0,) * len(self.parameters.gripper_joint_names)

    def check(self, spec: PolicySpec, arm: str) -> None:
        """Raise UserError if a checkpoint's spec is of another robot. `arm` names the arm in the message.

        Only keys that the file has are compared. A policy may use some of the cameras.
        """
        for name, theirs, ours, fits in self._comparisons(spec):
            if not fits:
                raise UserError(
                    f"the checkpoint is for another robot than arm {arm}: its {name} is {_text(theirs)}, the arm's is "
                    f"{_text(ours)}; use a checkpoint of this robot's demonstrations, or correct the arm file"
                )

    def _comparisons(self, spec: PolicySpec) -> list[tuple[str, Any, Any, bool]]:
        """Return (key, the spec's value, ours, whether they fit) for every key that the file has."""
        p, scales = self.parameters, spec.action
        cameras = tuple(camera.name for camera in spec.cameras)
        found: list[tuple[str, Any, Any, bool]] = []
        if self.described:
            if spec.observes_hand:
                found.append(("hand_frame_id", spec.hand_frame_id, self.frame_id, spec.hand_frame_id == self.frame_id))
            else:
                same = sorted(spec.joint_names) == sorted(self.joint_names)
                found.append(("joint_names", spec.joint_names, self.joint_names, same))
            same = sorted(spec.gripper_joint_names) == sorted(p.gripper_joint_names)
            found.append(("gripper_joint_names", spec.gripper_joint_names, p.gripper_joint_names, same))
            ours = dict(zip(p.gripper_joint_names, self._signs, strict=True))
            theirs = dict(zip(spec.gripper_joint_names, spec.gripper_joint_signs, strict=True))
            found.append(("gripper_joint_signs", theirs, ours, not same or ours == theirs))
            found.append(("frame_id", scales.frame_id, self.frame_id, scales.frame_id == self.frame_id))
        if "cameras" in self.given:
            found.append(("cameras", cameras, p.cameras, set(cameras) <= set(p.cameras)))
        if "image_fit" in self.given:
            fits = sorted({camera.image_fit for camera in spec.cameras})
            found.append(("image_fit", ", ".join(fits), p.image_fit, fits == [p.image_fit]))
        if spec.observes_hand and "hand_reference" in self.given:
            found.append(
                ("hand_reference", spec.hand_reference, p.hand_reference, spec.hand_reference == p.hand_reference)
            )
        numbers = {"rate_hz": spec.rate_hz} | {
            name: getattr(scales, name) for name in ("linear_scale_m", "angular_scale_rad", "gripper_open_width_m")
        }
        for name, value in numbers.items():
            if name in self.given:
                found.append((name, value, getattr(p, name), value == getattr(p, name)))
        return found

    def opening_m(self, gripper_G: np.ndarray) -> float:
        """Return the opening of the gripper for positions of its joints, signed as in the spec.

        Without any joint it is that of the open gripper.
        """
        p = self.parameters
        if not len(gripper_G):
            return p.gripper_open_width_m
        if not p.gripper_joint_open:
            return float(np.abs(gripper_G).sum())
        low, high = np.array(p.gripper_joint_closed), np.array(p.gripper_joint_open)
        share = (np.asarray(gripper_G) * self._signs - low) / (high - low)
        return float(np.clip(share.mean(), 0.0, 1.0) * p.gripper_open_width_m)


def robot_from_settings(settings: Mapping[str, Any]) -> Robot:
    """Return the robot that the settings of an arm describe. Raises UserError."""
    names = {field.name for field in fields(RobotParameters)}
    given = {name: value for name, value in settings.items() if name in names}
    if "image_px" in given:
        given["image_px"] = int(given["image_px"])
    parameters = RobotParameters(**given)
    robot = Robot(parameters, tuple(settings.get("joint_names", ())), settings.get("frame_id", ""), frozenset(given))
    if robot.described and robot.frame_id:
        robot.spec()  # reports names that appear twice
    return robot


def same_robot(spec: PolicySpec, robot: PolicySpec, **others: Any) -> PolicySpec:
    """Return `spec` with the joints, the gripper, the rate and the action of `robot`, and its way to fit images."""
    fits = {camera.name: camera.image_fit for camera in robot.cameras}
    cameras = tuple(
        dataclasses.replace(camera, image_fit=fits.get(camera.name, camera.image_fit)) for camera in spec.cameras
    )
    return dataclasses.replace(spec, cameras=cameras, **{name: getattr(robot, name) for name in SAME + HAND}, **others)


def other_robot(spec: PolicySpec, robot: PolicySpec) -> str:
    """Return in which way the spec is of another robot, in words; empty if it is of the same one."""
    for name in SAME + HAND * spec.observes_hand:
        if getattr(spec, name) != getattr(robot, name):
            return f"its {name} is {_text(getattr(robot, name))}, expected {_text(getattr(spec, name))}"
    return ""


def pose_frame(spec: PolicySpec, frame_id: str, commands_need_pose: bool) -> str:
    """Return the frame in which the pose of the hand must arrive.

    Args:
        spec: of the policy.
        frame_id: frame of the commands; it may be another name of the frame in the spec.
        commands_need_pose: a workspace or the output needs the pose in the frame of the commands.

    Raises:
        UserError: The policy observes the hand in another frame than the commands need.
    """
    if not spec.observes_hand or spec.hand_frame_id == spec.action.frame_id:
        return frame_id
    if commands_need_pose and spec.hand_frame_id != frame_id:
        raise UserError(
            f"the checkpoint observes the hand in the frame {spec.hand_frame_id!r}, and the workspace or the output "
            f"pose needs it in {frame_id!r}; disable the workspace and use another output, or train on demonstrations "
            "of this arm"
        )
    return spec.hand_frame_id


def not_simulated(spec: PolicySpec) -> str:
    """Return in which way the spec is of another robot than LIBERO's Panda, in words; empty if it is of that one."""
    return other_robot(libero_spec(joint_names=HAND_POSE if spec.observes_hand else PANDA_JOINTS), spec)


def _require_lengths(name: str, names: Sequence[str], **others: Sequence[Any]) -> None:
    if len(set(names)) != len(names):
        raise UserError(f"{name} is {list(names)}, expected every name once")
    for other, values in others.items():
        if values and len(values) != len(names):
            raise UserError(f"{other} has {len(values)} entries, expected {len(names)}, one for each of {name}")


def _text(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
