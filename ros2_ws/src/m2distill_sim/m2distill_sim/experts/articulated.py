"""Opening a drawer at its handle, and turning a knob.

Both follow what they hold: the joint's position decides when it is enough, so a hand that has slipped off takes hold
again.
"""

import numpy as np

from m2distill_sim.experts.motion import (
    ALIGNED,
    HOVER,
    OPEN_WIDTH,
    Intent,
    Over,
    Style,
    hand_yaw,
    reach_along,
    reach_down,
    tilted,
    turned,
    yaw_of,
)
from m2distill_sim.experts.pick_place import SLIPPED, SNUG
from m2distill_sim.experts.scene import Scene


class Joint:
    """What moves one body, its position counted from closed or off towards open or on."""

    def __init__(self, scene: Scene, body: int):
        self.body = body
        self._id = scene.model.body_jntadr[body]
        low, high = scene.model.jnt_range[self._id]
        self._sign = 1.0 if high > -low else -1.0

    def position(self, scene: Scene) -> float:
        return float(self._sign * scene.data.qpos[scene.model.jnt_qposadr[self._id]])

    def axis(self, scene: Scene) -> np.ndarray:
        """(3,) towards open."""
        return self._sign * scene.data.xaxis[self._id]

    def anchor(self, scene: Scene) -> np.ndarray:
        return scene.data.xanchor[self._id].copy()


class Pull:
    """Opens the drawer of a region; done once it is open and the hand has drawn back."""

    TILT = np.radians(80.0)  # of the hand, from pointing down
    STEP = 0.03  # m the hand is sent ahead of the handle
    BACK = 0.06  # m from the handle at which the hand has drawn back

    def __init__(self, scene: Scene, region: str, open_at: tuple[float, float], style: Style):
        self._joint = Joint(scene, scene.model.site(region).bodyid[0])
        (self._let_go, self._enough), self._style = open_at, style

    def intend(self, scene: Scene) -> Intent:
        outwards = self._joint.axis(scene)
        bar = scene.end(self._joint.body, outwards)
        turn = tilted(-outwards[:2], self.TILT, outwards[:2])
        along = np.cross(outwards, [0.0, 0.0, 1.0])
        point = bar.centre + 4 * self._style.offset_m * along
        error = point - scene.hand
        at_handle = np.linalg.norm(error) < SLIPPED and (turn * scene.turn.inv()).magnitude() < 0.5
        fingers_open = scene.width > OPEN_WIDTH
        position = self._joint.position(scene)

        if position > self._let_go or (position > self._enough and (fingers_open or not at_handle)):
            away = np.linalg.norm(error)
            back = outwards * 0.03 if fingers_open else np.zeros(3)
            return Intent("release", back, -1.0, turn, done=bool(not at_handle or away > self.BACK))
        reached = np.linalg.norm(error) < ALIGNED if fingers_open else at_handle
        if not reached:
            return Intent("reach", reach_along(scene, point, turn), -1.0, turn)
        if scene.width > bar.thickness + SNUG:
            return Intent("grasp", error, 1.0, turn)
        return Intent("carry", error + outwards * self.STEP, 1.0, turn)


class Turn:
    """Turns a knob on; done once it is and the hand has drawn back."""

    ON, ENOUGH = 0.8, 0.6  # rad at which it is let go, and below which it is turned again
    LEAD = 0.4  # rad the hand is turned ahead of the knob
    DEPTH = 0.018  # of the hand below the knob's ridge
    OVER = 0.10  # m over the knob, of the hand on its way
    ROOM = 0.02  # m by which fingers open before the hand draws back
    BACK = 0.09  # m over the knob at which the hand has drawn back

    def __init__(self, scene: Scene, fixture: str, style: Style):
        self._joint = Joint(scene, scene.jointed_body(fixture))
        self._style = style

    def intend(self, scene: Scene) -> Intent:
        ridge = scene.ridge(self._joint.body)
        middle = self._joint.anchor(scene)
        point = np.array([*middle[:2], ridge.top - self.DEPTH])
        yaw = hand_yaw(ridge.across)
        error = point - scene.hand
        at_knob = max(np.linalg.norm(error[:2]), abs(error[2])) < SLIPPED
        fingers_open = scene.width > OPEN_WIDTH
        position = self._joint.position(scene)

        if position > self.ON or (position > self.ENOUGH and (fingers_open or not at_knob)):
            has_let_go = scene.width > ridge.width + self.ROOM
            up = ridge.top + self.BACK + HOVER - scene.hand[2] if has_let_go else 0.0
            return Intent(
                "release",
                np.array([0.0, 0.0, up]),
                -1.0,
                turned(yaw_of(scene.turn)),
                done=bool(scene.hand[2] > ridge.top + self.BACK),
            )
        turn = turned(yaw)
        reached = at_knob and (not fingers_open or np.linalg.norm(error) < ALIGNED)
        if not reached:
            over = Over(ridge.top + self.OVER, -np.inf, (0.03, 0.12))
            return Intent(
                "reach", reach_down(scene, point, ridge.top, over, turn, self._style, fingers_open), -1.0, turn
            )
        if scene.width > ridge.width + SNUG:
            return Intent("grasp", error, 1.0, turn)
        return Intent("carry", error, 1.0, turned(yaw + self.LEAD))
