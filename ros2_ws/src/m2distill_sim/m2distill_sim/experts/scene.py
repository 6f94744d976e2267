"""Geometry that an expert reads from the simulator: the hand, the objects, and the height of obstacles.

Lengths are in metres, in the world frame, with z up. "Hand" is the point between the fingertips. A frame on the table
is an origin (x, y) and a yaw; a rectangle in that frame is given by its corners `low` and `high`, shape (2,) each.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.libero_env import LiberoEnv

NO_OBSTACLES = ("robot0_base", "world")  # root bodies that are ignored: the robot with its mount, and the room
SIGNS = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T


@dataclass(frozen=True)
class BoundingBox:
    """Axis-aligned bounding box of an object in its current pose."""

    low: np.ndarray  # (3,)
    high: np.ndarray  # (3,)

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Handle:
    """Horizontal bar of a drawer."""

    centre: np.ndarray  # (3,)
    thickness: float  # from top to bottom


@dataclass(frozen=True)
class KnobGrip:
    """Ridge by which a knob is held."""

    top: float  # height
    across: np.ndarray  # (2,) direction across the ridge
    width: float


class Scene:
    """Boxes around all collision geoms of an environment; `update` reads their current poses once per step."""

    def __init__(self, env: LiberoEnv):
        self._env, self.model, self.data = env, env.model, env.data
        model = env.model
        roots = [model.body(model.body_rootid[body]).name for body in model.geom_bodyid]
        solid = [geom for geom in range(model.ngeom) if model.geom_contype[geom] and roots[geom] not in NO_OBSTACLES]
        self._geoms = np.array(solid)
        self._owners = model.body_rootid[model.geom_bodyid[solid]]
        self._middles, self._halves = model.geom_aabb[solid, :3], model.geom_aabb[solid, 3:]
        self.names = env.object_names
        self.base = env.data.body(NO_OBSTACLES[0]).xpos[:2].copy()  # of the robot
        self._corner_points = {name: object_corners(env, name) for name in self.names}
        self.update()

    def update(self) -> None:
        """Read the hand and all boxes from the simulator."""
        observation = self._env.observe(render=False)
        self.hand = observation.ee_pos
        self.orientation = Rotation.from_quat(observation.ee_quat_xyzw)  # of the hand
        self.gripper_width = observation.gripper_positions[0] - observation.gripper_positions[1]  # between the fingers
        rotations = self.data.geom_xmat[self._geoms].reshape(-1, 3, 3)
        self._centres = np.einsum("nij,nj->ni", rotations, self._middles) + self.data.geom_xpos[self._geoms]
        self._spans = rotations * self._halves[:, None]  # (n, 3, 3) half a box along its own axes
        heights = np.abs(self._spans[:, 2]).sum(axis=1)
        flat = self._spans[:, :2]  # (n, 2, 3) seen from above
        longest = np.take_along_axis(flat, np.linalg.norm(flat, axis=1).argmax(axis=1)[:, None, None], axis=2)[..., 0]
        longest /= np.linalg.norm(longest, axis=1, keepdims=True)
        self._own_axes = np.stack([longest, longest[:, ::-1] * [-1, 1]], axis=1)  # (n, 2 axes, 2)
        self._own_halves = np.abs(self._own_axes @ flat).sum(axis=2)  # (n, 2)
        self._bottoms, self._tops = self._centres[:, 2] - heights, self._centres[:, 2] + heights

    def bounds(self, name: str) -> BoundingBox:
        """Return the bounding box of an object."""
        position, rotation = self.pose(name)
        points = self._corner_points[name] @ rotation.T + position
        return BoundingBox(points.min(axis=0), points.max(axis=0))

    def corner_points(self, name: str) -> np.ndarray:
        """Return the corners of an object's boxes, (n, 3) in the object's own frame."""
        return self._corner_points[name]

    def pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return position (3,) and rotation matrix (3, 3) of an object."""
        return self._env.object_pose(name)

    def max_height(self, origin, yaw: float, low, high, ignore: str | None = None, above: float = -np.inf) -> float:
        """Return the height of the highest box that overlaps a rectangle, -inf if none does.

        Args:
            origin: (2,) origin of the rectangle's frame.
            yaw: of that frame, rad.
            low: (2,) lower corner in that frame.
            high: (2,) upper corner in that frame.
            ignore: name of an object that does not count.
            above: count only boxes that are entirely above this height.
        """
        low, high = np.asarray(low), np.asarray(high)
        frame, half = _axes(yaw), (high - low) / 2
        away = self._centres[:, :2] - origin - (low + high) / 2 @ frame  # (n, 2)
        spans = np.abs(frame @ self._spans[:, :2]).sum(axis=2)  # (n, 2) of the boxes along the rectangle's axes
        apart = np.abs(away @ frame.T) > spans + half
        reach = np.abs(self._own_axes @ frame.T) @ half  # (n, 2) of the rectangle along the boxes' axes
        apart |= np.abs(np.einsum("nij,nj->ni", self._own_axes, away)) > self._own_halves + reach
        within = ~apart.any(axis=1) & (self._owners != self._root_body(ignore)) & (self._bottoms > above)
        return float(self._tops[within].max(initial=-np.inf))

    def object_width(self, name: str, yaw: float, low: float, high: float) -> float:
        """Return the width of an object along the y axis of a frame with `yaw`, between two heights."""
        band = (self._owners == self._root_body(name)) & (self._bottoms < high) & (self._tops > low)
        axis = _axes(yaw)[1]
        middle, half = self._centres[:, :2] @ axis, np.abs(axis @ self._spans[:, :2]).sum(axis=1)
        return float((middle + half)[band].max() - (middle - half)[band].min())

    def centre_of(self, name: str) -> np.ndarray:
        """Return the centre (2,) of an object or of a region."""
        return self.bounds(name).centre[:2] if name in self.names else self.data.site(name).xpos[:2].copy()

    def free_centre(self, name: str, placed: str) -> np.ndarray:
        """Return the centre (2,) of an object or of a region; in a drawer, of the part that its walls leave free.

        Args:
            name: the object or region.
            placed: name of the object to be placed there, which is ignored.
        """
        middle = self.centre_of(name)
        if not self.is_drawer_region(name):
            return middle
        axis = self.data.xaxis[self.model.body_jntadr[self._region_body(name)]][:2]
        floor = self.max_height(middle, 0.0, (-0.02, -0.02), (0.02, 0.02), placed)
        ends = []
        for way in (axis, -axis):
            steps = np.arange(0.0, 0.1, 0.004)
            yaw = np.arctan2(way[1], way[0])
            wall = (
                step
                for step in steps
                if self.max_height(middle, yaw, (step, -0.03), (step + 0.004, 0.03), placed) > floor + 0.03
            )
            ends.append(next(wall, steps[-1]))
        return middle + axis * (ends[0] - ends[1]) / 2

    def is_table_region(self, name: str) -> bool:
        """Return True for a region of the table itself."""
        return name not in self.names and self.model.body_rootid[self._region_body(name)] == self.model.body("table").id

    def is_drawer_region(self, name: str) -> bool:
        """Return True for a region inside a body that moves, such as a drawer."""
        return name not in self.names and self.model.body_jntnum[self._region_body(name)] > 0

    def is_sloped_region(self, name: str) -> bool:
        """Return True for a region on which no object can stand upright."""
        return name not in self.names and 0.1 < self.slope(name)[1][2] < 0.9

    def _region_body(self, name: str) -> int:
        return int(self.model.site(name).bodyid[0])

    def slope(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a region's centre (3,) and the axis (3,) along which an object lies in it: LIBERO's z axis."""
        site = self.data.site(name)
        return site.xpos.copy(), site.xmat.reshape(3, 3)[:, 2].copy()

    def handle(self, body: int, direction: np.ndarray) -> Handle:
        """Return the part of a body that extends furthest in a direction (3,)."""
        parts = np.flatnonzero(self.model.geom_bodyid[self._geoms] == body)
        reach = self._centres[parts] @ direction + np.abs(direction @ self._spans[parts]).sum(axis=1)
        part = parts[reach.argmax()]
        return Handle(self._centres[part], float(self._tops[part] - self._bottoms[part]))

    def knob_grip(self, body: int) -> KnobGrip:
        """Return the highest part of a body, seen from above."""
        parts = np.flatnonzero(self.model.geom_bodyid[self._geoms] == body)
        part = parts[self._tops[parts].argmax()]
        return KnobGrip(float(self._tops[part]), self._own_axes[part, 1], 2 * float(self._own_halves[part, 1]))

    def jointed_body(self, name: str) -> int:
        """Return the id of the body that the first joint of a fixture moves."""
        root = self._env.object_body(name)
        return next(
            body
            for body in range(self.model.nbody)
            if self.model.body_rootid[body] == root and self.model.body_jntnum[body]
        )

    def _root_body(self, name: str | None) -> int:
        return -1 if name is None else self._env.object_body(name)


def _axes(yaw: float) -> np.ndarray:
    """Return the x and the y axis of a frame as rows, (2, 2)."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, sin], [-sin, cos]])


def object_corners(env: LiberoEnv, name: str) -> np.ndarray:
    """Return the corners of an object's collision geoms, (n, 3) in the object's own frame."""
    model, body = env.model, env.object_body(name)
    found = []
    for geom in range(model.ngeom):
        if model.body_rootid[model.geom_bodyid[geom]] != body or model.geom_contype[geom] == 0:
            continue
        points = model.geom_aabb[geom, :3] + SIGNS * model.geom_aabb[geom, 3:]
        points = Rotation.from_quat(model.geom_quat[geom], scalar_first=True).apply(points) + model.geom_pos[geom]
        child = model.geom_bodyid[geom]
        while child != body:
            rotation = Rotation.from_quat(model.body_quat[child], scalar_first=True)
            points, child = rotation.apply(points) + model.body_pos[child], model.body_parentid[child]
        found.append(points)
    return np.concatenate(found)


def distance(vector: np.ndarray) -> float:
    """Return the Euclidean length of a vector."""
    return float(np.linalg.norm(vector))


def ramp(value: float, zero_at: float, one_at: float) -> float:
    """Return a linear ramp, clipped to [0, 1], that is 0 at `zero_at` and 1 at `one_at`."""
    return float(np.clip((value - zero_at) / (one_at - zero_at), 0.0, 1.0))
