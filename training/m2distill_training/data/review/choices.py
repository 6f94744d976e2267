"""The choices file: which episodes of a set to drop, and which steps of others to keep. The page of a set saves it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import DataError, unknown_name
from m2distill_training.data.review.episodes import DemoSet, open_set
from m2distill_training.runs.records import read_json
from m2distill_training.utils.schemas import fits, is_count, is_text


@dataclass(frozen=True)
class Choices:
    """Episodes to drop, and first and last step to keep of others, both counted from 0."""

    drop: frozenset[str] = frozenset()
    keep: dict[str, tuple[int, int]] = field(default_factory=dict)

    def check(self, demos: DemoSet) -> None:
        """Raise DataError unless they fit the set and leave an episode."""
        steps = {each.name: each.steps for each in demos.contents()}
        for name in (*self.drop, *self.keep):
            if name not in steps:
                raise DataError(f"{demos.path}: {unknown_name('episode', name, steps)}")
        for name, (first, last) in self.keep.items():
            length = steps[name]
            if length is not None and not 0 <= first <= last < length:
                raise DataError(
                    f"{demos.path}: {name} is to keep the steps {first} to {last}, it has the steps 0 to {length - 1}"
                )
        if not steps.keys() - self.drop:
            raise DataError(f"{demos.path}: all {len(steps)} episodes would be dropped; keep at least one")


def _is_range(value: Any) -> bool:
    return fits(value, [is_count]) and len(value) == 2


def _is_choices(value: Any) -> bool:
    form = {"set": is_text, "fingerprint": is_text, "drop": [is_text], "keep": {}}
    return fits(value, form) and all(is_text(name) and _is_range(pair) for name, pair in value["keep"].items())


def read_choices(path: Path, given: Path | None = None, cameras: Sequence[Camera] = CAMERAS) -> tuple[DemoSet, Choices]:
    """Read a choices file; return the set that it was saved for, and the choices.

    Args:
        path: the file.
        given: where the set is now; default: where it was.
        cameras: of the set.

    Raises:
        DataError: the set holds other episodes than those that the choices were made for.
        RunError: the file is missing or damaged.
    """
    record = read_json(path, _is_choices, "save it again from the page of m2distill data show")
    demos = open_set(given or Path(record["set"]), cameras)
    if demos.fingerprint() != record["fingerprint"]:
        raise DataError(
            f"{path} was saved for other episodes than those of {demos.path}; write the page again with "
            f"m2distill data show {demos.path}"
        )
    keep = {name: (first, last) for name, (first, last) in record["keep"].items() if name not in record["drop"]}
    return demos, Choices(frozenset(record["drop"]), keep)
