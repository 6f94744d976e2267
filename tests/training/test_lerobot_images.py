"""Images of LeRobot datasets: their sizes against the declared ones, the memory they take, and ffmpeg that hangs."""

import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from m2distill_policy.errors import DataError
from m2distill_training.data import videos
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.videos import LOSSLESS, VideoFiles, read_frames

STEPS = 8
WRIST = "observation.images.wrist"
VIDEO = f"videos/{WRIST}/chunk-000/file-000.mp4"
ROWS = "data/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def exported(write_libero, tmp_path_factory):
    """One episode of 8 steps, images of 16 x 16 px."""
    folder = tmp_path_factory.mktemp("exported")
    export_lerobot([write_libero(folder / "a_demo.hdf5", demos=1, steps=STEPS + 1)], folder / "set", lossless=True)
    return folder / "set"


@pytest.fixture
def dataset(exported, tmp_path):
    """A copy, for changing."""
    return Path(shutil.copytree(exported, tmp_path / "dataset"))


def declare(root, **changes):
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][WRIST] |= changes
    path.write_text(json.dumps(info))


def film(path, frames):
    video = VideoFiles(lambda number: path, LOSSLESS, 20, 10**9)
    video.add(frames)
    video.close()
    return path


def as_cells(root, cells):
    """The wrist's images in a column of the table."""
    pq.write_table(pq.read_table(root / ROWS).append_column(WRIST, pa.array(cells)), root / ROWS)
    declare(root, dtype="image")


def png(height, width):
    return {"bytes": imageio.imwrite("<bytes>", np.zeros((height, width, 3), np.uint8), format="png"), "path": None}


def imported_wrist(root, out):
    (path,) = import_lerobot(root, out)
    with open_libero(path, "as_stored") as file:
        (demo,) = file.demos()
    return demo.images["wrist"]


def test_a_video_of_another_size_than_declared(dataset, tmp_path):
    film(dataset / VIDEO, np.zeros((STEPS, 512, 256, 3), np.uint8))
    with pytest.raises(
        DataError,
        match=rf"episode 0: image 0 of {WRIST} has shape \[512, 256, 3\], info.json states "
        r"\[16, 16, 3\]; write there what is right, or copy the dataset again",
    ):
        import_lerobot(dataset, tmp_path / "out")


def test_one_large_image_among_small_ones_in_a_table(dataset, tmp_path):
    as_cells(dataset, [png(16, 16)] * (STEPS - 1) + [png(512, 256)])
    with pytest.raises(DataError, match=rf"image 7 of {WRIST} has shape \[512, 256, 3\], info.json states \[16, 16"):
        import_lerobot(dataset, tmp_path / "out")


@pytest.mark.parametrize("cell", [{"path": "a.png"}, {"bytes": None, "path": "a.png"}, {"bytes": b"hello"}, "a.png"])
def test_cells_that_hold_no_image(dataset, tmp_path, cell):
    as_cells(dataset, [cell] * STEPS)
    with pytest.raises(DataError, match=rf"episode 0: {WRIST} holds what is no image"):
        import_lerobot(dataset, tmp_path / "out")


def test_an_episode_too_large_for_memory_is_rejected_before_an_image_is_read(dataset, tmp_path):
    declare(dataset, shape=[2**20, 2**12, 3])
    (dataset / VIDEO).write_bytes(b"")
    with pytest.raises(DataError, match="episode 0 has 8 steps, whose images would take 96 GiB, allowed 8; split it"):
        import_lerobot(dataset, tmp_path / "out")


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ([16, 32, 3], ["height", "width", "channels"]),
        ([16, 32, 3], None),
        ([3, 16, 32], ["channels", "height", "width"]),
        ([32, 16, 3], ["width", "height", "channel"]),
        ([16, 32, 3], ["width", "height", "rgb"]),
    ],
)
def test_sides_are_taken_in_any_order(dataset, tmp_path, kind, shape, names):
    film(dataset / VIDEO, np.zeros((STEPS, 16, 32, 3), np.uint8))
    if kind == "image":
        as_cells(dataset, [png(16, 32)] * STEPS)
    declare(dataset, shape=shape, names=names)
    assert imported_wrist(dataset, tmp_path / "out").shape == (STEPS, 16, 32, 3)


def test_images_of_a_video_are_in_memory_one_by_one(tmp_path):
    path, count = film(tmp_path / "0.mp4", np.zeros((40, 256, 256, 3), np.uint8)), 0
    tracemalloc.start()
    for image in read_frames(path, 0.0, 40, 20):
        assert image.shape == (256, 256, 3)
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 40 and peak < 6 * image.nbytes


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """ffmpeg(before, after): a program in ffmpeg's place, with these shell commands around it. Returns its process."""
    real, pid = get_ffmpeg_exe(), tmp_path / "pid"

    def put(before="", after=""):
        program = tmp_path / "ffmpeg"
        program.write_text(f'#!/bin/sh\necho $$ > {pid}\n{before}\n"{real}" "$@"\n{after}\n')
        program.chmod(0o755)
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
        return pid

    return put


def is_running(pid):
    try:
        os.kill(int(pid.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_ffmpeg_that_does_not_end_is_killed_when_the_images_are_there(tmp_path, ffmpeg):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    path, pid = film(tmp_path / "0.mp4", frames), ffmpeg(after="exec sleep 1000")
    start = time.monotonic()
    np.testing.assert_array_equal(list(read_frames(path, 0.0, 5, 20)), frames)
    assert time.monotonic() - start < videos.PATIENCE_S / 4 and not is_running(pid)


def test_ffmpeg_that_gives_nothing_is_killed_in_the_end(tmp_path, ffmpeg, monkeypatch):
    monkeypatch.setattr(videos, "PATIENCE_S", 1)
    path, pid = film(tmp_path / "0.mp4", np.zeros((5, 16, 16, 3), np.uint8)), ffmpeg(before="exec sleep 1000")
    with pytest.raises(DataError, match=r"holds 0 images from 0 s on, expected 5 \(ffmpeg was killed, as after 1 s"):
        list(read_frames(path, 0.0, 5, 20))
    assert not is_running(pid)


def test_ffmpeg_has_ended_when_an_image_is_rejected(dataset, tmp_path, ffmpeg):
    film(dataset / VIDEO, np.zeros((STEPS, 512, 256, 3), np.uint8))
    pid = ffmpeg(after="exec sleep 1000")
    with pytest.raises(DataError, match=f"image 0 of {WRIST} has shape"):
        import_lerobot(dataset, tmp_path / "out")
    assert not is_running(pid)


def test_ffmpeg_that_complains_without_end_does_not_stand_still(tmp_path, ffmpeg):
    path = film(tmp_path / "0.mp4", np.zeros((5, 16, 16, 3), np.uint8))
    ffmpeg(before="yes corrupt | head -c 1000000 >&2")
    assert len(list(read_frames(path, 0.0, 5, 20))) == 5
    with pytest.raises(DataError, match=r"holds 5 images from 0 s on, expected 6 \(corrupt\)"):
        list(read_frames(path, 0.0, 6, 20))
