"""File systems, job systems and paths that differ from a plain local disk, and records that no reader accepts."""

import dataclasses
import errno
import fcntl
import os
import shutil
import stat

import h5py
import numpy as np
import pytest

from m2distill_policy.errors import DataError, UserError
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.videos import SMALL, VideoFiles, read_frames
from m2distill_training.engine.distributed import started_by_torchrun
from m2distill_training.engine.train import train
from m2distill_training.evaluation.drift import measure_drift
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError, append_line, locked, read_json, write_atomic, write_json
from m2distill_training.utils.schemas import is_text

SHORT = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))


def test_a_file_system_that_cannot_flush_folders_is_used(tmp_path, monkeypatch):
    """CIFS and VirtualBox report EINVAL for a folder; for a file it remains an error."""
    fsync, kinds = os.fsync, []

    def failing(descriptor):
        kinds.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if kinds[-1] is rejects_folders:
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    rejects_folders = True
    write_atomic(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content" and True in kinds
    rejects_folders = False
    with pytest.raises(RunError, match="file cannot be written"):
        write_atomic(tmp_path / "file", b"other")


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def failing(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", failing)
    with locked(tmp_path / "lock", "busy"):
        pass
    assert "has no locks (No locks available); make sure that no other process" in capsys.readouterr().err


def test_a_demonstration_file_is_read_without_locking_it(libero_file):
    path = libero_file()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with open_libero(path, "before") as demos:
            assert len(list(demos.demos())) == 3


def test_rounding_errors_of_actions_are_clipped(libero_file):
    path = libero_file()
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][2, 0] = 1.0000001
        file["data/demo_1/actions"][2, 0] = -1.00001
    with open_libero(path, "as_stored") as file:
        demos = file.demos()
        assert np.abs(next(demos).action).max() == 1.0
        with pytest.raises(DataError, match=r"demo_1/actions reaches 1\.00001, allowed -1 to 1"):
            next(demos)


def test_videos_are_written_to_a_path_with_a_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "robot:1" / "0.mp4"
    videos = VideoFiles(lambda number: path.relative_to(tmp_path), SMALL, 20, 1 << 20)
    videos.add(np.zeros((2, 16, 16, 3), np.uint8))
    videos.close()
    assert len(list(read_frames(path, 0.0, 2, 20))) == 2


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4 but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set.*unset"),
        ({"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "x"}, "but MASTER_PORT is not set"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many', expected a number"),
    ],
)
def test_variables_of_a_job_system_are_named(variables, message, monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert started_by_torchrun().size == 1
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        started_by_torchrun()


def test_drift_is_measured_from_another_folder(libero_file, tmp_path, monkeypatch):
    files = [libero_file(name, instruction=name, seed=seed) for seed, name in enumerate(("milk", "soup"))]
    monkeypatch.chdir(tmp_path)
    run = train(SHORT, [path.relative_to(tmp_path) for path in files], tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(measure_drift(run.path)["entries"]) == 1
    files[0].unlink()
    assert len(measure_drift(run.path)["entries"]) == 1  # from the decoded frames
    shutil.rmtree(tmp_path / ".m2distill_cache")
    with pytest.raises(RunError, match="milk_demo.hdf5, which the run learned from, is missing; restore it"):
        measure_drift(run.path)


@pytest.mark.parametrize("text", ["x" * 1001, "pick\0up"])
def test_an_instruction_that_cannot_be_recorded_is_rejected_before_training(text, libero_file, tmp_path):
    with pytest.raises(RunError, match="holds an instruction of .* characters"):
        train(SHORT, [libero_file()], tmp_path / "run", instructions=[text])
    assert not (tmp_path / "run").exists()


def test_a_record_that_its_reader_rejects_is_not_written(tmp_path):
    write_json(tmp_path / "a.json", {"text": "good"}, {"text": is_text})
    with pytest.raises(RunError, match="would hold values that cannot be read again"):
        write_json(tmp_path / "a.json", {"text": "x" * 1001}, {"text": is_text})
    assert read_json(tmp_path / "a.json") == {"text": "good"}
    with pytest.raises(RunError, match="would hold values that cannot be read again"):
        append_line(tmp_path / "b.jsonl", {"text": 1}, {"text": is_text})
    assert not (tmp_path / "b.jsonl").exists()
