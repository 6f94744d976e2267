"""Episodes for the Rerun viewer (https://rerun.io): images, joints, actions and gripper over steps."""

from pathlib import Path

import numpy as np
import rerun

from m2distill_training.data.review.episodes import Episode
from m2distill_training.data.review.page import ACTIONS

JPEG_QUALITY = 90


class RerunFile:
    """Writer of one .rrd file. Episode n is below the entity `set/n`."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._recording = rerun.RecordingStream("m2distill")
        self._recording.save(path)
        self._count = 0

    def add(self, set_name: str, episode: Episode) -> None:
        if episode.demo is None:
            return
        root, demo, log = f"{_plain(set_name)}/{self._count}", episode.demo, self._recording.log
        self._count += 1
        log(root, rerun.TextDocument(f"{episode.name}: {episode.instruction}"), static=True)
        joints, axes = episode.robot.joint_names, (*ACTIONS, "gripper")
        for step in range(len(demo.action)):
            self._recording.set_time("step", sequence=step)
            for camera, images in demo.images.items():
                image = rerun.Image(np.ascontiguousarray(images[step]))
                log(f"{root}/cameras/{_plain(camera)}", image.compress(jpeg_quality=JPEG_QUALITY))
            for name, value in zip(joints, demo.joint[step], strict=True):
                log(f"{root}/joints_rad/{name}", rerun.Scalars(float(value)))
            for name, value in zip(axes, demo.action[step], strict=True):
                log(f"{root}/action/{_plain(name)}", rerun.Scalars(float(value)))
            log(f"{root}/gripper_opening_m", rerun.Scalars(float(np.abs(demo.gripper[step]).sum())))

    def close(self) -> None:
        self._recording.flush()
        self._recording.disconnect()


def _plain(name: str) -> str:
    """Return the name as one part of an entity path."""
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name) or "_"
