"""What an expert knows: where hand and things are now, how far they reach, how high what is between them stands.

Lengths in m, world frame, z up; "hand" is the point between the fingertips. A frame on the table is an origin (x, y)
and a yaw; a rectangle in it is given by its corners `low` and `high`, (2,) each.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from m2distill_sim.libero_env import LiberoEnv

ROBOT = ("robot0_base", "world")  # roots of what is no obstacle: the robot with its mount, and the room
SIGNS = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T


@dataclass(frozen=True)
class Extent:
    """An object's axis-aligned bounds, now."""

    low: np.ndarray  # (3,)
    high: np.ndarray  # (3,)

    @property
    def centre(self) -> np.ndarray:
        return (self.low + self.high) / 2


@dataclass(frozen=True)
class Bar:
    """A handle."""

    centre: np.ndarray  # (3,)
    thickness: float  # from top to bottom


@dataclass(frozen=True)
class Ridge:
    """A knob's grip."""

    top: float
    across: np.ndarray  # (2,) direction
    width: float


class Scene:
    """Everything solid in an environment; `look` brings it up to date, once per step."""

    def __init__(self, env: LiberoEnv):
        self._env, self.model, self.data = env, env.model, env.data
        model = env.model
        roots = [model.body(model.body_rootid[body]).name for body in model.geom_bodyid]
        solid = [geom for geom in range(model.ngeom) if model.geom_contype[geom] and roots[geom] not in ROBOT]
        self._geoms = np.array(solid)
        self._owners = model.body_rootid[model.geom_bodyid[solid]]
        self._middles, self._halves = model.geom_aabb[solid, :3], model.geom_aabb[solid, 3:]
        self.names = env.object_names
        self.base = env.data.body(ROBOT[0]).xpos[:2].copy()  # of the robot
        self._outlines = {name: corners(env, name) for name in self.names}
        self.look()

    def look(self) -> None:
        observation = self._env.observe(render=False)
        self.hand = observation.ee_pos
        self.turn = Rotation.from_quat(observation.ee_quat_xyzw)
        self.width = observation.gripper_positions[0] - observation.gripper_positions[1]  # between the fingers
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

    def extent(self, name: str) -> Extent:
        position, rotation = self.pose(name)
        points = self._outlines[name] @ rotation.T + position
        return Extent(points.min(axis=0), points.max(axis=0))

    def outline(self, name: str) -> np.ndarray:
        """(n, 3) corners of an object in its own frame."""
        return self._outlines[name]

    def pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self._env.object_pose(name)

    def height(self, origin, yaw: float, low, high, ignore: str | None = None, above: float = -np.inf) -> float:
        """How high the highest thing reaches that stands in a rectangle, or hangs there wholly `above` a height, other
        than `ignore`; -inf over nothing."""
        low, high = np.asarray(low), np.asarray(high)
        frame, half = _axes(yaw), (high - low) / 2
        away = self._centres[:, :2] - origin - (low + high) / 2 @ frame  # (n, 2)
        spans = np.abs(frame @ self._spans[:, :2]).sum(axis=2)  # (n, 2) of the boxes along the rectangle's axes
        apart = np.abs(away @ frame.T) > spans + half
        reach = np.abs(self._own_axes @ frame.T) @ half  # (n, 2) of the rectangle along the boxes' axes
        apart |= np.abs(np.einsum("nij,nj->ni", self._own_axes, away)) > self._own_halves + reach
        within = ~apart.any(axis=1) & (self._owners != self._body(ignore)) & (self._bottoms > above)
        return float(self._tops[within].max(initial=-np.inf))

    def width_of(self, name: str, yaw: float, low: float, high: float) -> float:
        """How wide an object is along the y axis of a frame, between two heights."""
        band = (self._owners == self._body(name)) & (self._bottoms < high) & (self._tops > low)
        axis = _axes(yaw)[1]
        middle, half = self._centres[:, :2] @ axis, np.abs(axis @ self._spans[:, :2]).sum(axis=1)
        return float((middle + half)[band].max() - (middle - half)[band].min())

    def place(self, name: str) -> np.ndarray:
        """(2,) the middle of an object or of a region."""
        return self.extent(name).centre[:2] if name in self.names else self.data.site(name).xpos[:2].copy()

    def room(self, name: str, thing: str) -> np.ndarray:
        """(2,) the middle of an object or of a region; in a drawer, of what its walls and the cabinet leave free."""
        middle = self.place(name)
        if not self.slides(name):
            return middle
        axis = self.data.xaxis[self.model.body_jntadr[self._region_body(name)]][:2]
        floor = self.height(middle, 0.0, (-0.02, -0.02), (0.02, 0.02), thing)
        ends = []
        for way in (axis, -axis):
            steps = np.arange(0.0, 0.1, 0.004)
            yaw = np.arctan2(way[1], way[0])
            wall = (
                step
                for step in steps
                if self.height(middle, yaw, (step, -0.03), (step + 0.004, 0.03), thing) > floor + 0.03
            )
            ends.append(next(wall, steps[-1]))
        return middle + axis * (ends[0] - ends[1]) / 2

    def lies_on_table(self, name: str) -> bool:
        """Whether it is a region of the table itself."""
        return name not in self.names and self.model.body_rootid[self._region_body(name)] == self.model.body("table").id

    def slides(self, name: str) -> bool:
        """Whether it is a region inside of something that moves, as in a drawer."""
        return name not in self.names and self.model.body_jntnum[self._region_body(name)] > 0

    def slopes(self, name: str) -> bool:
        """Whether it is a region on which nothing stands upright."""
        return name not in self.names and 0.1 < self.slope(name)[1][2] < 0.9

    def _region_body(self, name: str) -> int:
        return int(self.model.site(name).bodyid[0])

    def slope(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A region's middle (3,), and the direction (3,) in which something upright lies in it: LIBERO's z axis."""
        site = self.data.site(name)
        return site.xpos.copy(), site.xmat.reshape(3, 3)[:, 2].copy()

    def end(self, body: int, direction: np.ndarray) -> "Bar":
        """The part of a body that reaches furthest in a direction."""
        parts = np.flatnonzero(self.model.geom_bodyid[self._geoms] == body)
        reach = self._centres[parts] @ direction + np.abs(direction @ self._spans[parts]).sum(axis=1)
        part = parts[reach.argmax()]
        return Bar(self._centres[part], float(self._tops[part] - self._bottoms[part]))

    def ridge(self, body: int) -> "Ridge":
        """The highest part of a body, seen from above."""
        parts = np.flatnonzero(self.model.geom_bodyid[self._geoms] == body)
        part = parts[self._tops[parts].argmax()]
        return Ridge(float(self._tops[part]), self._own_axes[part, 1], 2 * float(self._own_halves[part, 1]))

    def jointed_body(self, name: str) -> int:
        """The body of a fixture that its first joint moves."""
        root = self._env.object_body(name)
        return next(
            body
            for body in range(self.model.nbody)
            if self.model.body_rootid[body] == root and self.model.body_jntnum[body]
        )

    def _body(self, name: str | None) -> int:
        return -1 if name is None else self._env.object_body(name)


def _axes(yaw: float) -> np.ndarray:
    """(2, 2) the x and the y axis of a frame."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, sin], [-sin, cos]])


def corners(env: LiberoEnv, name: str) -> np.ndarray:
    """(n, 3) corners of an object's collision geoms in its own frame."""
    model, body = env.model, env.object_body(name)
    found = []
    for geom in range(model.ngeom):
        if model.body_rootid[model.geom_bodyid[geom]] != body or model.geom_contype[geom] == 0:
            continue
        points = model.geom_aabb[geom, :3] + SIGNS * model.geom_aabb[geom, 3:]
        points = Rotation.from_quat(model.geom_quat[geom], scalar_first=True).apply(points) + model.geom_pos[geom]
        child = model.geom_bodyid[geom]
        while child != body:
            turn = Rotation.from_quat(model.body_quat[child], scalar_first=True)
            points, child = turn.apply(points) + model.body_pos[child], model.body_parentid[child]
        found.append(points)
    return np.concatenate(found)


def ramp(value: float, zero_at: float, one_at: float) -> float:
    return float(np.clip((value - zero_at) / (one_at - zero_at), 0.0, 1.0))
