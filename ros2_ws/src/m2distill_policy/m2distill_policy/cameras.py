"""The cameras: the one table of their names, and the file by which a user adds further ones.

A camera has one name in the spec, in a batch and in ROS topics (`<name>/image_raw`). Files and simulators call it
otherwise; the table holds those names. `--cameras FILE` replaces the table for one command:

    cameras:
      - name: agentview                # a camera of the table needs its name alone
      - name: wrist
      - name: front
        hdf5_key: front_rgb            # below obs/ in a LIBERO-format file; default: <name>_rgb
        sim_camera: frontview          # the simulator's name; default: <name>
        lerobot_key: observation.images.front  # default: observation.images.<name>
        size: 128                      # side of the image in pixels; default: that of the command
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2distill_policy.errors import UserError, unknown_name

SMALLEST_PX, LARGEST_PX = 8, 4096  # side of an image
MAX_CAMERAS = 16


@dataclass(frozen=True)
class Camera:
    """The names of one camera. A key that is left empty is derived from `name`.

    Attributes:
        name: Name in the spec, in batches and in topics.
        hdf5_key: Dataset below `obs/` in a LIBERO-format file.
        sim_camera: Camera of the MuJoCo model.
        lerobot_key: Feature of a LeRobot dataset.
        size: Side of the square image in pixels; 0: the size that the command or the preset states.
    """

    name: str
    hdf5_key: str = ""
    sim_camera: str = ""
    lerobot_key: str = ""
    size: int = 0

    def __post_init__(self):
        if not self.name.isidentifier():
            raise UserError(f"camera name {self.name!r} is not an identifier (letters, digits and underscores)")
        for key, derived in (
            ("hdf5_key", f"{self.name}_rgb"),
            ("sim_camera", self.name),
            ("lerobot_key", f"observation.images.{self.name}"),
        ):
            object.__setattr__(self, key, getattr(self, key) or derived)
        if self.size and not SMALLEST_PX <= self.size <= LARGEST_PX:
            raise UserError(f"camera {self.name}: size is {self.size} px, allowed {SMALLEST_PX} to {LARGEST_PX}")
        if "/" in self.hdf5_key:
            raise UserError(f"camera {self.name}: hdf5_key is {self.hdf5_key!r}, expected a name without a slash")


CAMERAS = (
    Camera("agentview", hdf5_key="agentview_rgb", sim_camera="agentview"),
    Camera("wrist", hdf5_key="eye_in_hand_rgb", sim_camera="robot0_eye_in_hand"),
)
CAMERA_NAMES = tuple(camera.name for camera in CAMERAS)


def find_camera(name: str, cameras: Iterable[Camera] = CAMERAS) -> Camera:
    """Return the camera of this name from `cameras`, else from the table, else one with derived keys."""
    return next((camera for camera in (*cameras, *CAMERAS) if camera.name == name), None) or Camera(name)


def square_sizes(size_px: int, cameras: Iterable[Camera] = CAMERAS) -> dict[str, tuple[int, int]]:
    """Return {name: (height, width)} for an environment whose cameras have `size_px` where they state no size."""
    return {camera.name: (camera.size or size_px,) * 2 for camera in cameras}


def read_cameras(path: Path) -> tuple[Camera, ...]:
    """Return the cameras that a YAML or JSON file lists, in its order. Raises UserError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text("utf8"))  # JSON is YAML
    except OSError as error:
        raise UserError(f"camera file {path} cannot be read ({error.strerror}); give a YAML or JSON file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"camera file {path} is neither YAML nor JSON ({reason:.200})") from None
    if not isinstance(content, dict) or set(content) != {"cameras"}:
        raise UserError(f"camera file {path} holds no list `cameras`, and that alone; see m2distill_policy/cameras.py")
    try:
        return parse_cameras(content["cameras"])
    except UserError as error:
        raise UserError(f"camera file {path}: {error}") from None


def parse_cameras(entries: Any) -> tuple[Camera, ...]:
    """Return the cameras that a list of JSON objects describes. Raises UserError."""
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_CAMERAS:
        raise UserError(f"cameras is {entries!r:.80}, expected a list of 1 to {MAX_CAMERAS} cameras")
    cameras = tuple(_parse(number, entry) for number, entry in enumerate(entries, 1))
    for key in ("name", "hdf5_key", "lerobot_key"):
        values = [getattr(camera, key) for camera in cameras]
        if twice := [value for value in values if values.count(value) > 1]:
            raise UserError(f"two cameras have the {key} {twice[0]!r}; each needs its own")
    return cameras


def camera_records(cameras: Iterable[Camera]) -> list[dict[str, Any]]:
    """Return the cameras as JSON values; the inverse of `parse_cameras`."""
    return [dataclasses.asdict(camera) for camera in cameras]


def recorded_cameras(metrics: Mapping[str, Any]) -> tuple[Camera, ...]:
    """Return the cameras that the metrics of a checkpoint name; none if they are those of the table."""
    return parse_cameras(metrics["cameras"]) if "cameras" in metrics else ()


def _parse(number: int, entry: Any) -> Camera:
    if not isinstance(entry, dict):
        raise UserError(f"camera {number} is {entry!r:.80}, expected keys such as name and size")
    fields = {field.name: field.type for field in dataclasses.fields(Camera)}
    for key, value in entry.items():
        if key not in fields:
            raise UserError(f"camera {number}: {unknown_name('key', str(key), fields)}")
        expected = int if key == "size" else str
        if type(value) is not expected:
            raise UserError(f"camera {number}: {key} is {value!r:.80}, expected {expected.__name__}")
    if "name" not in entry:
        raise UserError(f"camera {number} has no name")
    known = next((camera for camera in CAMERAS if camera.name == entry["name"]), None)
    return dataclasses.replace(known, **entry) if known else Camera(**entry)
