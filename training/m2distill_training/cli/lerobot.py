"""The commands `m2distill export lerobot` and `m2distill import lerobot`."""

from pathlib import Path

from tyro.conf import Positional

from m2distill_training.data.lerobot.layout import CAMERAS
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot


def export_lerobot_command(data: Positional[tuple[Path, ...]], out: Path, lossless: bool = False) -> None:
    """LIBERO-format files become one LeRobot dataset, version 3.0: images as video, a task for each instruction.

    Example: m2distill export lerobot data/demos/*.hdf5 --out data/lerobot

    Args:
        data: HDF5 files, of m2distill collect and import or LIBERO's own.
        out: folder of the new dataset.
        lossless: every pixel as it was, in files about five times as large.
    """
    info = export_lerobot(data, out, lossless)
    print(f"{out}: {info['total_episodes']} episodes, {info['total_frames']} steps, {info['total_tasks']} task(s)")


def import_lerobot_command(
    dataset: Positional[Path], out: Path, agentview: str = CAMERAS["agentview"], wrist: str = CAMERAS["wrist"]
) -> None:
    """A LeRobot dataset of a Panda, version 3.0, becomes LIBERO-format files, one per task.

    It needs observation.state (seven joints, two fingers), action (change of the hand's pose, fingers) and two cameras,
    at 20 Hz; docs/lerobot.md has names and units.

    Example: m2distill import lerobot data/lerobot --out data/kitchen

    Args:
        dataset: folder with meta/, data/ and videos/.
        out: folder of the new files.
        agentview: the feature with the images of the camera that sees the scene.
        wrist: the feature with those of the camera at the hand.
    """
    for path in import_lerobot(dataset, out, {"agentview": agentview, "wrist": wrist}):
        print(path)
