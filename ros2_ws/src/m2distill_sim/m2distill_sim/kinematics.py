"""Kinematics of the simulated arm: frames and joints with the names of a real Panda, cameras, and a URDF.

Everything is read from the MuJoCo model. Transforms are (4, 4) float64 matrices from the child's frame to the parent's,
with lengths in m. Joint positions have the signs of a real robot: those of both fingers are positive when open.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.arm_env import ROBOT_RGB
from m2distill_sim.renderer import mujoco

WORLD, BASE, HAND, TCP = "world", "panda_link0", "panda_hand", "panda_hand_tcp"  # frames
ROOT_BODY, HAND_BODY, GRIP_SITE = "robot0_link0", "robot0_right_hand", "gripper0_grip_site"
SPEEDS = {"revolute": 2.175, "prismatic": 0.2}  # rad/s, Franka's data sheet (slowest joint); m/s, franka_description
GREY = (0.5, 0.5, 0.5)
# From the frame of a MuJoCo camera (x right, y up, z backwards) to an optical frame (x right, y down, z forwards)
OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Joint:
    """A joint of one degree of freedom."""

    name: str
    kind: str  # revolute or prismatic
    axis: np.ndarray  # (3,), in the frame of the link that it moves
    lower: float  # rad or m
    upper: float
    effort: float  # Nm or N


@dataclass(frozen=True)
class Box:
    """Shape of a part of a link, for drawing."""

    offset: np.ndarray  # of its centre, in the link's frame
    size_m: np.ndarray  # (3,), side lengths
    rgb: tuple[float, float, float]


@dataclass(frozen=True)
class Link:
    """A rigid part of the arm."""

    name: str
    parent: str  # empty for the base
    offset: np.ndarray  # at joint position 0
    joint: Joint | None  # None: fixed to its parent
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera in pixels; pixel (0, 0) has its centre at (0, 0), as in OpenCV and image_geometry."""

    height: int
    width: int
    focal_px: float
    centre_x_px: float
    centre_y_px: float


class ArmKinematics:
    """The arm of a MuJoCo model of robosuite.

    Attributes:
        links: Parents before their children.
        joint_names: Order of all joint positions.
        base: Transform from the base to the world.
    """

    def __init__(self, model: Any):
        self._model = model
        self._bodies: dict[int, str] = {}  # body -> name of its link
        self._inside: dict[int, np.ndarray] = {}  # body of a link -> its transform to the link
        self.links = tuple(self._read_links())
        self.joint_names = tuple(link.joint.name for link in self.links if link.joint)
        self.base = self._to_world(model.body(ROOT_BODY).id)
        self._moving = [link for link in self.links if link.joint]
        self._axes = np.array([link.joint.axis for link in self._moving if link.joint])
        self._revolute = np.array([link.joint.kind == "revolute" for link in self._moving if link.joint])

    def motions(self, positions_J: np.ndarray) -> dict[str, np.ndarray]:
        """Return the transform of each link that a joint moves to its parent, by the link's name."""
        vectors = self._axes * np.asarray(positions_J)[:, None]
        motion = np.tile(np.eye(4), (len(vectors), 1, 1))
        motion[:, :3, :3] = Rotation.from_rotvec(vectors * self._revolute[:, None]).as_matrix()
        motion[:, :3, 3] = vectors * ~self._revolute[:, None]
        return {link.name: link.offset @ motion[i] for i, link in enumerate(self._moving)}

    def pose(self, frame: str, positions_J: np.ndarray) -> np.ndarray:
        """Return the transform of a link's frame to the base."""
        motions, found = self.motions(positions_J), np.eye(4)
        links = {link.name: link for link in self.links}
        while frame != BASE:
            found = motions.get(frame, links[frame].offset) @ found
            frame = links[frame].parent
        return found

    def mount(self, camera: str) -> tuple[str, np.ndarray] | None:
        """Return the frame that a camera of the model is fixed to, and the transform of its optical frame to that one.

        None for a camera on something that moves and is not the arm.
        """
        model, number = self._model, self._model.camera(camera).id
        found = _matrix(model.cam_pos[number], model.cam_quat[number]) @ OPTICAL
        body = model.cam_bodyid[number]
        while body and body not in self._bodies:
            if model.body_jntnum[body]:
                return None
            found = self._offset(body) @ found
            body = model.body_parentid[body]
        if body:
            return self._bodies[body], self._inside[body] @ found
        return BASE, np.linalg.inv(self.base) @ found

    def intrinsics(self, camera: str, height: int, width: int) -> Intrinsics:
        """Return the intrinsics of a camera of the model for images of this size."""
        focal_px = height / 2 / np.tan(np.deg2rad(self._model.cam_fovy[self._model.camera(camera).id]) / 2)
        return Intrinsics(height, width, float(focal_px), (width - 1) / 2, (height - 1) / 2)

    def urdf(self) -> str:
        """Return the arm as URDF, with boxes around its collision shapes."""
        robot = ET.Element("robot", name="panda")
        for link in self.links:
            element = ET.SubElement(robot, "link", name=link.name)
            for box in link.boxes:
                visual = ET.SubElement(element, "visual")
                _add_origin(visual, box.offset)
                ET.SubElement(ET.SubElement(visual, "geometry"), "box", size=_text(box.size_m))
                material = ET.SubElement(visual, "material", name="rgb_" + "_".join(f"{c:g}" for c in box.rgb))
                ET.SubElement(material, "color", rgba=_text([*box.rgb, 1.0]))
        for link in self.links:
            if link.parent:
                _add_joint(robot, link)
        ET.indent(robot)
        return ET.tostring(robot, encoding="unicode")

    # --- the model

    def _read_links(self) -> Iterator[Link]:
        model = self._model
        boxes: dict[str, list[Box]] = {}
        found: list[Link] = []
        for body in self._subtree(model.body(ROOT_BODY).id):
            name, parent = model.body(body).name, model.body_parentid[body]
            if not (model.body_jntnum[body] or name in (ROOT_BODY, HAND_BODY)):  # a part of its parent
                self._bodies[body] = self._bodies[parent]
                self._inside[body] = self._inside[parent] @ self._offset(body)
            else:
                self._bodies[body], self._inside[body] = _frame(name), np.eye(4)
                is_root = name == ROOT_BODY
                offset = np.eye(4) if is_root else self._inside[parent] @ self._offset(body)
                found.append(Link(_frame(name), "" if is_root else self._bodies[parent], offset, self._joint(body)))
            boxes.setdefault(self._bodies[body], []).extend(self._boxes(body))
        for link in found:
            yield Link(link.name, link.parent, link.offset, link.joint, tuple(boxes[link.name]))
        site = model.site(GRIP_SITE).id
        grip = self._inside[model.site_bodyid[site]] @ _matrix(model.site_pos[site], np.array([1.0, 0.0, 0.0, 0.0]))
        offset = np.eye(4)
        offset[:3, 3] = grip[:3, 3]  # between the fingertips, with the axes of the hand, as SimObservation has it
        yield Link(TCP, HAND, offset, None)

    def _subtree(self, body: int) -> Iterator[int]:
        yield body
        for child in range(body + 1, self._model.nbody):
            if self._model.body_parentid[child] == body:
                yield from self._subtree(child)

    def _joint(self, body: int) -> Joint | None:
        model = self._model
        if not model.body_jntnum[body]:
            return None
        number = model.body_jntadr[body]
        kind = "revolute" if model.jnt_type[number] == mujoco.mjtJoint.mjJNT_HINGE else "prismatic"
        (lower, upper), axis = model.jnt_range[number], model.jnt_axis[number].copy()
        if kind == "prismatic" and upper <= 0:  # a finger that opens in the negative direction
            lower, upper, axis = -upper, -lower, -axis
        (actuator,) = np.flatnonzero(model.actuator_trnid[:, 0] == number)
        limited = model.actuator_forcelimited[actuator]
        forces = model.actuator_forcerange[actuator] if limited else model.actuator_ctrlrange[actuator]
        return Joint(
            _frame(model.joint(number).name), kind, axis, float(lower), float(upper), float(np.abs(forces).max())
        )

    def _boxes(self, body: int) -> Iterator[Box]:
        """Yield a box around each collision shape of a body."""
        model, first = self._model, self._model.body_geomadr[body]
        for geom in range(first, first + model.body_geomnum[body]):
            if model.geom_contype[geom] or model.geom_conaffinity[geom]:
                centre, half = model.geom_aabb[geom].reshape(2, 3)
                offset = self._inside[body] @ _matrix(model.geom_pos[geom], model.geom_quat[geom])
                offset = offset @ _matrix(centre, np.array([1.0, 0.0, 0.0, 0.0]))
                name = model.geom(geom).name
                rgb = next((rgb for part, rgb in ROBOT_RGB.items() if part in name), GREY)
                yield Box(offset, 2 * half, rgb)

    def _offset(self, body: int) -> np.ndarray:
        """Return the transform of a body to its parent at joint position 0."""
        return _matrix(self._model.body_pos[body], self._model.body_quat[body])

    def _to_world(self, body: int) -> np.ndarray:
        found = np.eye(4)
        while body:
            found, body = self._offset(body) @ found, self._model.body_parentid[body]
        return found


def quat_xyzw(matrix: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,) of a transform."""
    return Rotation.from_matrix(matrix[:3, :3]).as_quat()


def _frame(name: str) -> str:
    """Return the name that a body or a joint of robosuite has on a real Panda."""
    return "panda_" + name.removeprefix("robot0_").removeprefix("gripper0_").removeprefix("right_")


def _matrix(position: np.ndarray, quat_wxyz: np.ndarray) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3] = Rotation.from_quat(np.roll(quat_wxyz, -1)).as_matrix()
    found[:3, 3] = position
    return found


def _add_joint(robot: ET.Element, link: Link) -> None:
    joint = link.joint
    name = joint.name if joint else f"{link.name}_joint"
    element = ET.SubElement(robot, "joint", name=name, type=joint.kind if joint else "fixed")
    _add_origin(element, link.offset)
    ET.SubElement(element, "parent", link=link.parent)
    ET.SubElement(element, "child", link=link.name)
    if joint:
        ET.SubElement(element, "axis", xyz=_text(joint.axis))
        limits = {"lower": joint.lower, "upper": joint.upper, "effort": joint.effort, "velocity": SPEEDS[joint.kind]}
        ET.SubElement(element, "limit", {key: _text([value]) for key, value in limits.items()})


def _add_origin(element: ET.Element, offset: np.ndarray) -> None:
    with_fixed_axes = Rotation.from_matrix(offset[:3, :3]).as_euler("xyz")  # URDF's roll, pitch and yaw
    ET.SubElement(element, "origin", xyz=_text(offset[:3, 3]), rpy=_text(with_fixed_axes))


def _text(values: Sequence[float] | np.ndarray | Iterable[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)
