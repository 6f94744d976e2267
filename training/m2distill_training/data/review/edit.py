"""Drop, trim and merge: a new set from chosen episodes. The old sets are read only, and the new one appears whole."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from m2distill_policy.errors import DataError
from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.utils.files import new_folder, publish_folder
from m2distill_training.data.lerobot.lerobot_export import new_dataset
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.review.choices import Choices
from m2distill_training.data.review.episodes import BagSet, DemoSet, Hdf5Set, LerobotSet
from m2distill_training.data.review.hdf5_copy import Part, copy_demos
from m2distill_training.data.review.outliers import curves_of


def edit_set(demos: DemoSet, choices: Choices, out: Path, lossless: bool = False) -> int:
    """Write the set without the dropped episodes, the others whole or in part; return their number.

    `lossless` is for the videos of a LeRobot dataset, which are encoded again. Raises DataError.
    """
    choices.check(demos)
    return _write([(demos, choices)], out, None, lossless)


def merge_sets(sets: Sequence[DemoSet], out: Path, instruction: str | None = None, lossless: bool = False) -> int:
    """Write all episodes of sets of one kind as one set; return their number.

    `instruction` replaces those of HDF5 files, which must otherwise agree. Raises DataError.
    """
    if len(sets) < 2:
        raise DataError(f"{len(sets)} set given, expected at least 2 to merge")
    if len(kinds := dict.fromkeys(each.kind for each in sets)) > 1:
        raise DataError(f"the sets are {' and '.join(kinds)}; import them first, then merge the HDF5 files")
    texts = {normalise(each.instruction): each.instruction for demos in sets for each in demos.contents()}
    if isinstance(sets[0], Hdf5Set) and instruction is None and len(texts) > 1:
        raise DataError(
            f"the files have the instructions {', '.join(map(repr, texts.values()))}, and a file holds one task; keep "
            "them apart, or give the one of all with --instruction"
        )
    if not isinstance(sets[0], Hdf5Set) and instruction is not None:
        raise DataError(f"--instruction is for HDF5 files, the sets are {sets[0].kind}; leave it out")
    return _write([(each, Choices()) for each in sets], out, instruction, lossless)


def without_idle_ends(demos: DemoSet, names: Sequence[str] = ()) -> Choices:
    """Return the choices that remove the steps before the first and after the last motion; `names`: of these alone."""
    keep = {}
    for episode in demos.episodes():
        curves = curves_of(episode)
        if curves is not None and (not names or episode.name in names):
            first, last = curves.busy()
            if (first, last) != (0, curves.steps - 1):
                keep[episode.name] = (first, last)
    return Choices(keep=keep)


def _write(parts: Sequence[tuple[DemoSet, Choices]], out: Path, instruction: str | None, lossless: bool) -> int:
    if out.exists():
        raise DataError(f"{out} exists; name a new file or folder")
    if isinstance(parts[0][0], Hdf5Set):
        if out.suffix != ".hdf5":
            raise DataError(f"{out} has the suffix {out.suffix!r}, expected .hdf5 as the set's")
        return copy_demos(
            out, [Part(demos.path, _kept(demos, choices), choices.keep) for demos, choices in parts], instruction
        )
    if isinstance(parts[0][0], LerobotSet):
        return _write_lerobot(parts, out, lossless)
    return _copy_bags(parts, out)


def _kept(demos: DemoSet, choices: Choices) -> list[str]:
    return [each.name for each in demos.contents() if each.name not in choices.drop]


def _write_lerobot(parts: Sequence[tuple[DemoSet, Choices]], out: Path, lossless: bool) -> int:
    count = 0
    with new_dataset(out, lossless, parts[0][0].cameras) as writer:
        for demos, choices in parts:
            for episode in demos.episodes():
                if episode.demo is not None and episode.name not in choices.drop:
                    demo = episode.demo
                    if episode.name in choices.keep:
                        demo = _cut(demo, *choices.keep[episode.name])
                    writer.add(demos.path, demo, episode.instruction)
                    count += 1
    return count


def _cut(demo: Demo, first: int, last: int) -> Demo:
    rows = slice(first, last + 1)
    images = {camera: frames[rows] for camera, frames in demo.images.items()}
    return dataclasses.replace(
        demo, images=images, joint=demo.joint[rows], gripper=demo.gripper[rows], action=demo.action[rows]
    )


def _copy_bags(parts: Sequence[tuple[DemoSet, Choices]], out: Path) -> int:
    chosen: dict[str, Path] = {}
    for demos, choices in parts:
        assert isinstance(demos, BagSet)
        if choices.keep:
            raise DataError(
                f"{demos.path} holds bags, and a recording is not cut; import it with m2distill import bag, which "
                "removes idle ends, and trim the HDF5 file"
            )
        for path in demos.bags():
            if path.name in choices.drop:
                continue
            if path.name in chosen:
                raise DataError(f"{path} has the name of {chosen[path.name]}; rename one")
            chosen[path.name] = path
    with new_folder(out) as temporary:
        for name, path in chosen.items():
            shutil.copytree(path, temporary / name)
        publish_folder(temporary, out)
    return len(chosen)
