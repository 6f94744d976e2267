"""Open a drawer by its handle, and turn a knob.

Both skills follow the body that they hold. The joint position decides when the skill is done, so a hand that has
slipped off grasps again. Lengths in m.
"""

import numpy as np

from m2distill_sim.experts.motion import (
    ALIGNED,
    OPEN_WIDTH,
    PREGRASP_HEIGHT,
    Intent,
    Style,
    TransitProfile,
    angle_between,
    approach_along_fingers,
    approach_from_above,
    hand_at_yaw,
    hand_yaw,
    tilted_hand,
    yaw_of,
)
from m2distill_sim.experts.pick_place import GRASP_LOST, GRASP_TOLERANCE
from m2distill_sim.experts.scene import Scene


class Joint:
    """The joint that moves one body; its position counts from closed or off towards open or on."""

    def __init__(self, scene: Scene, body: int):
        self.body = body
        self._id = scene.model.body_jntadr[body]
        low, high = scene.model.jnt_range[self._id]
        self._sign = 1.0 if high > -low else -1.0

    def position(self, scene: Scene) -> float:
        """Return the position in m or rad."""
        return float(self._sign * scene.data.qpos[scene.model.jnt_qposadr[self._id]])

    def axis(self, scene: Scene) -> np.ndarray:
        """Return the axis (3,), towards open."""
        return self._sign * scene.data.xaxis[self._id]

    def anchor(self, scene: Scene) -> np.ndarray:
        """Return a point (3,) on the axis."""
        return scene.data.xanchor[self._id].copy()


class OpenDrawer:
    """Opens the drawer of a region; done once it is open and the hand has retreated."""

    TILT = np.radians(80.0)  # of the hand, from pointing down
    STEP = 0.03  # commanded lead of the hand over the handle
    BACK = 0.06  # distance from the handle at which the hand has retreated

    def __init__(self, scene: Scene, region: str, thresholds: tuple[float, float], style: Style):
        """Create the skill.

        Args:
            scene: the scene.
            region: inside the drawer.
            thresholds: positions in m above which the drawer is released, and below which it is pulled again.
            style: of the episode.
        """
        self._joint = Joint(scene, scene.model.site(region).bodyid[0])
        (self._release_at, self._open_at), self._style = thresholds, style

    def intend(self, scene: Scene) -> Intent:
        outwards = self._joint.axis(scene)
        handle = scene.handle(self._joint.body, outwards)
        orientation = tilted_hand(-outwards[:2], self.TILT, outwards[:2])
        along = np.cross(outwards, [0.0, 0.0, 1.0])
        point = handle.centre + 4 * self._style.offset_m * along
        error = point - scene.hand
        at_handle = np.linalg.norm(error) < GRASP_LOST and angle_between(orientation, scene.orientation) < 0.5
        fingers_open = scene.gripper_width > OPEN_WIDTH
        position = self._joint.position(scene)

        if position > self._release_at or (position > self._open_at and (fingers_open or not at_handle)):
            away = np.linalg.norm(error)
            back = outwards * 0.03 if fingers_open else np.zeros(3)
            return Intent("release", back, -1.0, orientation, done=bool(not at_handle or away > self.BACK))
        reached = np.linalg.norm(error) < ALIGNED if fingers_open else at_handle
        if not reached:
            return Intent("reach", approach_along_fingers(scene, point, orientation), -1.0, orientation)
        if scene.gripper_width > handle.thickness + GRASP_TOLERANCE:
            return Intent("grasp", error, 1.0, orientation)
        return Intent("carry", error + outwards * self.STEP, 1.0, orientation)


class TurnKnob:
    """Turns a knob on; done once it is on and the hand has retreated."""

    RELEASE_AT, ON_AT = 0.8, 0.6  # rad above which the knob is released, and below which it is turned again
    LEAD = 0.4  # rad, commanded lead of the hand over the knob
    DEPTH = 0.018  # of the hand below the knob's ridge
    OVER = 0.10  # of the hand over the knob in transit
    OPENING = 0.02  # by which fingers open before the hand retreats
    BACK = 0.09  # over the knob at which the hand has retreated

    def __init__(self, scene: Scene, fixture: str, style: Style):
        self._joint = Joint(scene, scene.jointed_body(fixture))
        self._style = style

    def intend(self, scene: Scene) -> Intent:
        grip = scene.knob_grip(self._joint.body)
        middle = self._joint.anchor(scene)
        point = np.array([*middle[:2], grip.top - self.DEPTH])
        yaw = hand_yaw(grip.across)
        error = point - scene.hand
        at_knob = max(np.linalg.norm(error[:2]), abs(error[2])) < GRASP_LOST
        fingers_open = scene.gripper_width > OPEN_WIDTH
        position = self._joint.position(scene)

        if position > self.RELEASE_AT or (position > self.ON_AT and (fingers_open or not at_knob)):
            height, released = scene.hand[2], scene.gripper_width > grip.width + self.OPENING
            rise = grip.top + self.BACK + PREGRASP_HEIGHT - height if released else 0.0
            orientation, done = hand_at_yaw(yaw_of(scene.orientation)), bool(height > grip.top + self.BACK)
            return Intent("release", np.array([0.0, 0.0, rise]), -1.0, orientation, done)
        orientation = hand_at_yaw(yaw)
        reached = at_knob and (not fingers_open or np.linalg.norm(error) < ALIGNED)
        if not reached:
            profile = TransitProfile(grip.top + self.OVER, -np.inf, (0.03, 0.12))
            move = approach_from_above(scene, point, grip.top, profile, orientation, self._style, fingers_open)
            return Intent("reach", move, -1.0, orientation)
        if scene.gripper_width > grip.width + GRASP_TOLERANCE:
            return Intent("grasp", error, 1.0, orientation)
        return Intent("carry", error, 1.0, hand_at_yaw(yaw + self.LEAD))
