"""Named layouts of LeRobot datasets: which features hold what, and how the images are turned.

| name | datasets | joints | images |
|---|---|---|---|
| m2distill | those of `m2distill export lerobot` | by their names in `observation.state` | upright |
| any4lerobot | LIBERO as any4lerobot converts it | `observation.states.joint_state` and `.gripper_state` | mirrored |
| libero | LIBERO as `lerobot/libero` | none: `observation.state` is the pose of the hand | mirrored |

LIBERO's renderer returns images with the bottom row first. Converters for vision-language-action models turn them by
180 degrees: they are upright then, and left and right are exchanged ("mirrored").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_policy.errors import DataError, UserError, unknown_name
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_training.data.lerobot.layout import STATE

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # how images are stored -> upright, (..., H, W, 3)
    "upright": lambda images: images,
    "mirrored": lambda images: images[..., :, ::-1, :],
    "upside-down": lambda images: images[..., ::-1, :, :],
    "rotated": lambda images: images[..., ::-1, ::-1, :],
}
STATES = "observation.states"
HAND_WIDTH = 8  # position, axis-angle, two fingers


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        name: Name for `--layout`.
        state: Features whose numbers are joints, or the pose of the hand, and then fingers, with the names that they
            must have; empty names are not compared.
        robot_fingers: Both fingers open positively, as on a robot; otherwise the second is negative, as in LIBERO.
        images: How the images are stored, one of TURNS.
        rates_hz: Declared rates that are accepted.
        cameras: camera -> features that may hold its images; the first that exists is taken, else its own.
    """

    name: str
    state: tuple[tuple[str, tuple[str, ...], int], ...]
    robot_fingers: bool
    images: str
    rates_hz: tuple[float, ...]
    cameras: dict[str, tuple[str, ...]]


LIBERO_CAMERAS = {
    CAMERA_NAMES[0]: ("observation.images.image",),
    CAMERA_NAMES[1]: ("observation.images.wrist_image", "observation.images.image2"),
}
LIBERO_RATES_HZ = (10.0, 20.0)  # converters declare either for LIBERO's 20 Hz
M2DISTILL = Layout("m2distill", ((STATE, PANDA_JOINTS + PANDA_FINGERS, 9),), True, "upright", (20.0,), {})
ANY4LEROBOT = Layout(
    "any4lerobot",
    ((f"{STATES}.joint_state", (), 7), (f"{STATES}.gripper_state", (), 2)),
    False,
    "mirrored",
    LIBERO_RATES_HZ,
    LIBERO_CAMERAS,
)
LIBERO = Layout("libero", ((STATE, (), 8),), False, "mirrored", LIBERO_RATES_HZ, LIBERO_CAMERAS)
LAYOUTS = {layout.name: layout for layout in (M2DISTILL, ANY4LEROBOT, LIBERO)}


def find_layout(name: str | None, features: dict, where: str) -> Layout:
    """Return the layout `name`, or by default m2distill.

    Raises:
        UserError: there is no such layout.
        DataError: the features are evidently of another layout, or have no joints.
    """
    if name is not None and name not in LAYOUTS:
        raise UserError(unknown_name("layout", name, LAYOUTS))
    has_joints = all(key in features for key, _, _ in ANY4LEROBOT.state)
    if name is None and has_joints:
        raise DataError(
            f"{where} has {STATES}.joint_state, as in the layout any4lerobot of LIBERO; name it with --layout "
            "any4lerobot, and --images if the images are not mirrored"
        )
    shape = features[STATE].get("shape") if STATE in features else None
    if name != LIBERO.name and shape == [HAND_WIDTH] and not has_joints:
        raise DataError(
            f"{where}: {STATE} has the {HAND_WIDTH} numbers of LeRobot's LIBERO sets, the pose of the hand and two "
            "fingers; name it with --layout libero, and train with --state hand"
        )
    return LAYOUTS[name or M2DISTILL.name]


def upright(images: np.ndarray, stored: str) -> np.ndarray:
    """Return (..., H, W, 3) upright images of images that are `stored` in one of TURNS."""
    return TURNS[stored](images)


def check_gripper(gripper_T2: np.ndarray, action_T7: np.ndarray, where: str) -> None:
    """Raise DataError unless fingers and commands have LIBERO's signs.

    Args:
        gripper_T2: fingers in m, the second negative.
        action_T7: actions whose last number is -1 to open and 1 to close.
        where: name of the episode.
    """
    if np.median(gripper_T2[:, 1]) > 1e-3 or np.median(gripper_T2[:, 0]) < -1e-3:
        raise DataError(
            f"{where}: the fingers are at {np.median(gripper_T2, 0)} m, expected the first positive and the second "
            "negative, as in LIBERO"
        )
    opening = np.diff(gripper_T2[:, 0] - gripper_T2[:, 1])
    moving = np.abs(opening) > 1e-3
    agreement = float(np.mean(np.sign(opening[moving]) * np.sign(action_T7[:-1][moving, 6]))) if moving.any() else 0.0
    if agreement > 0.5:
        raise DataError(
            f"{where}: the fingers open when the last number of the action is positive, expected -1 open, 1 closed; "
            "change its sign"
        )
