"""Import of a LeRobot dataset as LIBERO-format files, one per task (dataset.py, layouts.py).

Numbers with other names or units, and other rates, are rejected.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import UserError
from m2distill_policy.utils.files import folder_in_use
from m2distill_training.data.lerobot.dataset import LerobotDataset
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.libero.writer import NewDemo, file_names, write_demos


def import_lerobot(
    source: Path,
    out: Path,
    cameras: Sequence[Camera] = CAMERAS,
    *,
    layout: str | None = None,
    images: str | None = None,
    check: Callable[[str, Demo, str], None] = lambda instruction, demo, stored: None,
) -> list[Path]:
    """Write the dataset folder `source` as one file per task in the folder `out`.

    Args:
        source: folder with meta/, data/ and videos/.
        out: folder of the files.
        cameras: they name the features with images, unless the layout does.
        layout: one of layouts.LAYOUTS; None for ours.
        images: how images are stored, one of layouts.TURNS; None as in the layout.
        check: called with the instruction, the first demo of every task and how its images were stored.

    Raises:
        DataError: the dataset does not fit; files of earlier tasks then remain, each complete.
    """
    dataset = LerobotDataset(source, {camera.name: camera.lerobot_key for camera in cameras}, layout, images)
    paths = {instruction: out / name for instruction, name in file_names(dataset.tasks()).items()}

    def demos(instruction: str) -> Iterator[NewDemo]:
        for number, demo in enumerate(dataset.demos(instruction)):
            if number == 0:
                check(instruction, demo, dataset.images)
            yield NewDemo(demo, {}, {})

    with folder_in_use(out):
        for path in paths.values():
            if path.exists():
                raise UserError(f"{path} exists; name another folder")
        for instruction, path in paths.items():
            write_demos(path, instruction, demos(instruction), cameras)
    return list(paths.values())
