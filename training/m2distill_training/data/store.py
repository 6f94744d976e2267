"""Memory-mapped frames: a dataset that is decoded, flipped and resized once and then read by index.

A store is a folder `<cache>/<key>/` of .npy files. The key is a hash of the source file's bytes and of everything that
shapes the frames. A store is therefore never invalidated: other data have another key. Frames pass through
`observation.prepare_image`, as on the robot.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np

from m2distill_policy.cameras import CAMERAS, Camera, find_camera
from m2distill_policy.errors import DataError, SpecError
from m2distill_policy.observations.image_fit import CENTRE_CROP
from m2distill_policy.observations.observation import prepare_image
from m2distill_policy.robot import other_robot
from m2distill_policy.spec import CameraSpec, PolicySpec
from m2distill_policy.utils.files import new_folder, publish_folder, reserve
from m2distill_training.data.libero.reader import LiberoFile, open_libero

CACHE = ".m2distill_cache"
STORE_VERSION = 1  # counts up when the same source would give other arrays


@dataclass(frozen=True)
class Store:
    """All F frames of one task's demos, one demo after the other.

    Demo i is frames bounds[i] to bounds[i+1]. All arrays are memory-mapped, so an open store takes almost no memory of
    the process.
    """

    source: Path
    key: str
    instruction: str
    images: dict[str, np.ndarray]  # camera -> (F, H, W, 3) uint8, model orientation
    joint: np.ndarray  # (F, J) float32, rad
    gripper: np.ndarray  # (F, G) float32, m
    action: np.ndarray  # (F, A) float32 in [-1, 1]
    bounds: np.ndarray  # (demos + 1,) int64
    task: str = ""  # SUITE/NAME; empty if unknown

    @property
    def n_demos(self) -> int:
        return len(self.bounds) - 1


def open_store(
    source: Path,
    spec: PolicySpec,
    pairing: str,
    cache: Path | None = None,
    cameras: Sequence[Camera] = CAMERAS,
) -> Store:
    """Return the store of `source`, built if there is none.

    Args:
        source: LIBERO-format file.
        spec: The views and their sizes.
        pairing: As for `open_libero`.
        cache: Folder of stores; default: a hidden folder beside the source.
        cameras: The names of the cameras in the file.

    Raises:
        DataError: The file lacks a camera of the spec, or is damaged.
    """
    read = [find_camera(view.name, cameras) for view in spec.cameras]
    version = _version(source)
    with open_libero(source, pairing, read, "hand" if spec.observes_hand else "joints") as file:
        if problem := other_robot(spec, file.robot):
            raise DataError(f"{source}: its demonstrations are of another robot: {problem}; use files of one robot")
        fits = {camera.name: camera.image_fit for camera in file.robot.cameras}
        for camera in spec.cameras:
            if fits.get(camera.name, camera.image_fit) != camera.image_fit:
                raise DataError(
                    f"{source}: its images of {camera.name} were made with image_fit {fits[camera.name]}, the policy's "
                    f"is {camera.image_fit}; import the episodes again with the policy's"
                )
        key = _content_key(source, spec, pairing, read)
        if _version(source) != version:  # the key would be that of other content than the frames
            raise DataError(f"{source} was replaced while it was read; repeat the command")
        folder = (cache or source.parent / CACHE) / key
        if not folder.is_dir():
            _build(folder, file, spec)
        instruction, task = file.instruction, file.task
    return _load(folder, source, instruction, task, spec)


def find_store(dataset: dict, spec: PolicySpec, cache: Path | None = None) -> Store | None:
    """Return the store of a dataset, an entry of data.json, whose file is missing; None if there is none."""
    source = Path(dataset["path"])
    folder = (cache or source.parent / CACHE) / dataset["key"]
    if not folder.is_dir():
        return None
    return _load(folder, source, dataset["instruction"], dataset.get("task", ""), spec)


def _load(folder: Path, source: Path, instruction: str, task: str, spec: PolicySpec) -> Store:
    try:
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        store = Store(
            source,
            folder.name,
            instruction,
            {c.name: arrays[f"image_{c.name}"] for c in spec.cameras},
            arrays["joint"],
            arrays["gripper"],
            arrays["action"],
            arrays["bounds"],
            task,
        )
        check_arrays(store)
    except (OSError, EOFError, ValueError, KeyError, TokenError) as error:
        raise DataError(
            f"decoded frames in {folder} are damaged or missing ({error}); remove that folder, and the next start "
            "decodes them again"
        ) from None
    return store


def check_arrays(store: Store) -> None:
    """Raise ValueError for arrays that do not belong together."""
    bounds, frames = store.bounds, len(store.action) if store.action.ndim else -1
    tables = (store.joint, store.gripper, store.action)
    if not (
        all(x.ndim == 2 and len(x) == frames and x.dtype == np.float32 for x in tables)
        and all(x.ndim == 4 and len(x) == frames and x.dtype == np.uint8 for x in store.images.values())
        and bounds.ndim == 1
        and bounds.dtype.kind == "i"
        and len(bounds) > 1
        and bounds[0] == 0
        and bounds[-1] == frames
        and (np.diff(bounds) > 0).all()
    ):
        raise ValueError("its arrays do not belong together")


def _version(source: Path) -> tuple[int, ...]:
    """Return numbers that change if a file is replaced or written; none without a file, which the reader reports."""
    try:
        found = source.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _content_key(source: Path, spec: PolicySpec, pairing: str, cameras: Sequence[Camera]) -> str:
    digest = hashlib.sha256()
    views = [dataclasses.asdict(c) for c in spec.cameras]
    for view in views:
        if view["image_fit"] == CENTRE_CROP:  # the default, as before this setting existed
            del view["image_fit"]
    shape = {"version": STORE_VERSION, "pairing": pairing, "cameras": views}
    if other := {c.name: c.hdf5_key for c in cameras if c.hdf5_key != find_camera(c.name).hdf5_key}:
        shape["hdf5_keys"] = other
    if spec.observes_hand:
        shape["state"] = ["hand", *spec.hand_reference]
    digest.update(json.dumps(shape, sort_keys=True).encode())
    with source.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()[:24]


def _build(folder: Path, file: LiberoFile, spec: PolicySpec) -> None:
    """Write all arrays under a temporary name, flush them, then rename: a store is complete or absent."""
    try:
        with new_folder(folder) as temporary:
            _write_arrays(temporary, file, spec)
            publish_folder(temporary, folder)  # or another process built the same store first: its copy serves as well
    except OSError as error:
        raise DataError(
            f"decoded frames cannot be kept in {folder.parent} ({error.strerror}); choose another place "
            "with --cache, or make room there"
        ) from None


def _write_arrays(folder: Path, file: LiberoFile, spec: PolicySpec) -> None:
    bounds = np.concatenate([[0], np.cumsum(file.lengths())]).astype(np.int64)
    images = {c.name: _new_images(folder / f"image_{c.name}.npy", int(bounds[-1]), c) for c in spec.cameras}
    low_dim: dict[str, list[np.ndarray]] = {"joint": [], "gripper": [], "action": []}
    for demo, start in zip(file.demos(), bounds[:-1], strict=True):
        for camera in spec.cameras:
            try:
                for i, image in enumerate(demo.images[camera.name]):
                    images[camera.name][start + i] = prepare_image(image, camera)
            except SpecError as error:
                raise DataError(f"{file.path}: {demo.name}: {error}") from None
        for name, arrays in low_dim.items():
            arrays.append(getattr(demo, name))
    for array in images.values():
        array.flush()
    for name, arrays in low_dim.items():
        np.save(folder / f"{name}.npy", np.concatenate(arrays))
    np.save(folder / "bounds.npy", bounds)


def _new_images(path: Path, frames: int, camera: CameraSpec) -> np.memmap:
    """Create the mapped array (frames, H, W, 3) of a camera, with its space on the disk."""
    shape = (frames, camera.height, camera.width, 3)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    reserve(path)
    return array
