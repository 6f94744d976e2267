"""Kept episodes in the recorder's folder, for the page: labels, counts by instruction, and filmstrips. No ROS."""

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from m2distill_policy.errors import UserError
from m2distill_policy.recording.episode import METADATA

SHOWN = 6  # newest episodes
READ_AT_ONCE = 50  # new episodes in one scan, so that a large folder does not occupy the processor
FILM_LIMIT_S = 30.0
NAME = re.compile(r"[\w-]+")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML without its C part is 10 times slower


class EpisodeFolder:
    """Reader of the recorder's folder.

    Args:
        folder: The folder; empty: unknown.
    """

    def __init__(self, folder: str):
        self.folder = Path(folder).absolute() if folder else None
        self._known: dict[str, dict[str, Any]] = {}
        self._film_lock = asyncio.Lock()
        self.section: dict[str, Any] = {"folder": str(self.folder or ""), "newest": [], "counts": [], "problem": ""}

    def scan(self) -> None:
        """Read what is new, and compose `section`. It may wait for the disk."""
        if self.folder is None:
            return
        section: dict[str, Any] = {**self.section, "problem": ""}
        try:
            names = sorted(path.parent.name for path in self.folder.glob(f"*/{METADATA}"))
            new = [name for name in reversed(names) if name not in self._known][:READ_AT_ONCE]
            self._known = {name: self._known[name] for name in names if name in self._known}
            for name in new:
                self._known[name] = _labels(self.folder / name)
        except OSError as error:
            section["problem"] = f"{self.folder} cannot be read ({error.strerror})"
        episodes = [self._known[name] for name in sorted(self._known, reverse=True)]
        section["newest"] = episodes[:SHOWN]
        counts = Counter(episode["instruction"] for episode in episodes if episode["success"] == "true")
        section["counts"] = [list(pair) for pair in counts.most_common()]
        self.section = section

    def successes(self, instruction: str) -> list[Path]:
        """Return the successful episodes of an instruction, oldest first, as far as `scan` knows them."""
        assert self.folder is not None  # the caller has asked
        return [
            self.folder / name
            for name, labels in sorted(self._known.items())
            if (labels["instruction"], labels["success"]) == (instruction, "true")
        ]

    async def film(self, name: str) -> tuple[int, bytes]:
        """Return the number of images and a JPEG with them side by side. Raises UserError."""
        if self.folder is None or not NAME.fullmatch(name) or name not in self._known:
            raise UserError(f"no episode {name!r} in the folder")
        command = [sys.executable, "-m", "m2distill_policy.recording.filmstrip", str(self.folder / name)]
        async with self._film_lock:  # one at a time
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                strip, _ = await asyncio.wait_for(process.communicate(), FILM_LIMIT_S)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
                raise UserError(f"reading {name} took more than {FILM_LIMIT_S:.0f} s") from None
        if process.returncode or len(strip) < 2:
            raise UserError(f"no image of {name} can be read")
        return strip[0], strip[1:]


def _labels(folder: Path) -> dict[str, Any]:
    """Return what the page shows of an episode; a damaged one has a problem instead."""
    found = {"name": folder.name, "instruction": "", "success": "", "operator": "", "duration_s": 0.0, "problem": ""}
    try:
        information = yaml.load((folder / METADATA).read_text(), LOADER)["rosbag2_bagfile_information"]
        labels = information.get("custom_data") or {}
        found |= {name: str(labels.get(name, "")) for name in ("instruction", "success", "operator")}
        found["duration_s"] = round(information["duration"]["nanoseconds"] / 1e9, 1)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        found["problem"] = f"{METADATA} is damaged"
    return found
