"""A set of demonstrations, opened alike from an HDF5 file, a LeRobot dataset or a folder of bags."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError
from m2distill_policy.recording.episode import METADATA
from m2distill_policy.spec import PolicySpec
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.dataset import LerobotDataset
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.rosbag.bag_import import convert_bag
from m2distill_training.data.rosbag.bag_messages import find_bags, open_bag


@dataclass(frozen=True)
class Listed:
    """One entry of a set's table of contents, read without images."""

    name: str  # unique in its set
    instruction: str
    steps: int | None  # None for a bag, whose steps follow from its import
    seconds: float


@dataclass(frozen=True)
class Episode:
    """One episode of a set."""

    name: str
    instruction: str
    demo: Demo | None  # None if it cannot become a demonstration
    notes: str = ""  # what the import reports
    rejected: str = ""  # why the import drops it
    robot: PolicySpec = layout.SPEC  # its joints and rate


class DemoSet(ABC):
    """Demonstrations in one file or folder. Images are upright, and step i of an episode is row i of its set."""

    kind = ""

    def __init__(self, path: Path, cameras: Sequence[Camera] = CAMERAS):
        self.path, self.cameras = path, tuple(cameras)

    @abstractmethod
    def contents(self) -> list[Listed]:
        """Return every episode, in order. Raises DataError."""

    @abstractmethod
    def episodes(self) -> Iterator[Episode]:
        """Yield every episode, in the order of `contents`. Raises DataError."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def size_bytes(self) -> int:
        paths = [self.path] if self.path.is_file() else self.path.rglob("*")
        return sum(path.stat().st_size for path in paths if path.is_file())

    def fingerprint(self) -> str:
        """Return a text that differs for other episodes, lengths or instructions."""
        rows = [[each.name, each.instruction, each.steps, each.seconds] for each in self.contents()]
        return hashlib.sha256(json.dumps([self.kind, rows]).encode()).hexdigest()


class Hdf5Set(DemoSet):
    kind = "HDF5"

    def contents(self) -> list[Listed]:
        with open_libero(self.path, "as_stored", self.cameras) as file:
            return [
                Listed(name, file.instruction, steps, steps / file.robot.rate_hz)
                for name, steps in zip(file.demo_names, file.lengths(), strict=True)
            ]

    def episodes(self) -> Iterator[Episode]:
        with open_libero(self.path, "as_stored", self.cameras) as file:
            for demo in file.demos():
                yield Episode(demo.name, file.instruction, demo, robot=file.robot)


class LerobotSet(DemoSet):
    kind = "LeRobot"

    def _dataset(self) -> LerobotDataset:
        return LerobotDataset(self.path, {camera.name: camera.lerobot_key for camera in self.cameras})

    def contents(self) -> list[Listed]:
        return [
            Listed(f"episode {number}", instruction, steps, steps / layout.SPEC.rate_hz)
            for number, instruction, steps in self._dataset().contents()
        ]

    def episodes(self) -> Iterator[Episode]:
        for instruction, demo in self._dataset().all_demos():
            yield Episode(demo.name, instruction, demo)


class BagSet(DemoSet):
    """Bags in one folder, or one bag; their steps are those of `m2distill import bag`."""

    kind = "bags"

    def bags(self) -> list[Path]:
        return find_bags([self.path])

    def contents(self) -> list[Listed]:
        found = []
        for path in self.bags():
            instruction, seconds = "", 0.0
            try:
                with open_bag(path) as bag:
                    instruction, seconds = bag.labels.get("instruction", ""), bag.seconds
            except DataError:
                pass  # `episodes` states why
            found.append(Listed(path.name, instruction, None, seconds))
        return found

    def episodes(self) -> Iterator[Episode]:
        for path in self.bags():
            report, converted, spec = convert_bag(path, unlabelled=True)
            demo = None if converted is None else converted.demo
            notes = "" if report.dropped else report.line()
            yield Episode(path.name, report.instruction, demo, notes, report.dropped, spec or layout.SPEC)


def open_set(path: Path, cameras: Sequence[Camera] = CAMERAS) -> DemoSet:
    """Return the set at `path`. Raises DataError for a path that holds none."""
    if path.is_file():
        return Hdf5Set(path, cameras)
    if (path / layout.INFO).is_file():
        return LerobotSet(path, cameras)
    if (path / METADATA).is_file() or any(path.glob(f"*/{METADATA}")):
        return BagSet(path, cameras)
    raise DataError(
        f"{path} is no set of demonstrations; name an HDF5 file, a LeRobot dataset (with {layout.INFO}) or a folder of "
        f"bags (with {METADATA})"
    )


def find_sets(paths: Sequence[Path], cameras: Sequence[Camera] = CAMERAS) -> list[DemoSet]:
    """Return the sets at the paths, in order; a folder of HDF5 files stands for its files. Raises DataError."""
    if not paths:
        raise DataError("no set given; name HDF5 files, LeRobot datasets or folders of bags")
    found: list[Path] = []
    for path in paths:
        files = sorted(path.glob("[!.]*.hdf5")) if path.is_dir() and not (path / layout.INFO).is_file() else []
        found += files or [path]
    return [open_set(path, cameras) for path in dict.fromkeys(found)]
