"""Faults of data and machines that docs/dev/data_faults.md lists, beside those of test_environments.py."""

import errno
import fcntl
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from m2distill_policy.errors import AssetError, UserError
from m2distill_policy.recording.episode import Recordings
from m2distill_policy.utils import files
from m2distill_policy.utils.files import folder_in_use, new_file, reserve
from m2distill_sim import assets
from m2distill_sim.video import write_video
from m2distill_training.data.videos import SMALL, VideoFiles, read_frames
from m2distill_training.engine.train import train
from m2distill_training.experiments.collect import collect
from m2distill_training.promotion import promotion
from m2distill_training.promotion.gate import Thresholds
from m2distill_training.promotion.promotion import promote
from m2distill_training.runs.records import RunError

FRAMES = np.zeros((4, 16, 32, 3), np.uint8)


def test_a_second_collect_into_a_folder_is_rejected_at_once(tmp_path):
    with (
        folder_in_use(tmp_path / "out"),
        pytest.raises(UserError, match="another process writes to .*out; wait for it"),
    ):
        collect("libero_object", [0], 1, tmp_path / "out", workers=1, progress=False)


def test_a_temporary_file_of_a_living_process_is_not_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "NEW_S", -1.0)
    path = tmp_path / "a.hdf5"
    (tmp_path / ".a.hdf5.dead.tmp").write_bytes(b"part")
    (tmp_path / ".b.hdf5.dead.tmp").write_bytes(b"of another file")
    with new_file(path) as first:
        first.write(b"first")
        with new_file(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.hdf5.dead.tmp", "a.hdf5"]


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_that_cannot_allocate_is_used_while_it_has_space(tmp_path, monkeypatch, error):
    def failing(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", failing)
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 20)
    reserve(path)
    os.truncate(path, 1 << 43)
    with pytest.raises(OSError, match="No space left"):
        reserve(path)


def test_episodes_are_recorded_to_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def failing(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", failing)
    with Recordings(tmp_path / "episodes"):
        pass
    assert "has no locks" in capsys.readouterr().err


def test_a_file_system_without_links_is_reported_before_the_proof(libero_file, tmp_path, monkeypatch):
    from m2distill_training.presets import debug

    run = train(debug(), [libero_file()], tmp_path / "run")

    def failing(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", failing)
    monkeypatch.setattr(promotion, "check_forgetting", lambda *_, **__: pytest.fail("the proof has begun"))
    with pytest.raises(
        RunError, match="cannot hold the link `current`.*symbolic links, or give the robot a checkpoint"
    ):
        promote(run.path, thresholds=Thresholds(), suites=())
    assert not list(run.path.glob(".current*"))


def test_a_film_is_written_to_a_path_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "robot:1").mkdir()
    path = (tmp_path / "robot:1/a.mp4").relative_to(tmp_path)
    write_video(path, list(FRAMES), 20)
    assert len(list(read_frames(path, 0.0, 4, 20))) == 4
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(AssetError, match="cannot be written to .*set XDG_CACHE_HOME to a folder that can be written"):
        assets.find_assets("builtin")


def test_a_rotation_that_a_player_would_apply_changes_no_image(tmp_path):
    videos = VideoFiles(lambda _: tmp_path / "a.mp4", SMALL, 20, 1 << 20)
    videos.add(FRAMES)
    videos.close()
    command = [get_ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", tmp_path / "a.mp4", "-c", "copy"]
    subprocess.run([*command, tmp_path / "b.mp4"], check=True)
    assert [image.shape for image in read_frames(tmp_path / "b.mp4", 0.0, 4, 20)] == [(16, 32, 3)] * 4
