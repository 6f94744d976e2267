"""What a run folder records, and that nothing in it is lost or trusted wrongly: full disk, damage, other settings."""

import dataclasses
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import CheckpointError
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError, read_json, read_lines, write_atomic
from m2distill_training.runs.run_folder import RunFolder

SHORT = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=6))  # saves after 4 of 6 steps


class Killed(BaseException):
    """Ends a run between two gradient steps as abruptly as a Python process can end itself."""


def kill_at(stage: int, step: int):
    def on_step(progress):
        if (progress.stage, progress.step) == (stage, step):
            raise Killed

    return on_step


@pytest.fixture
def files(libero_file) -> list[Path]:
    return [libero_file("a", instruction="pick up the milk"), libero_file("b", instruction="open the drawer", seed=1)]


def events(folder: Path, source: str) -> list[tuple[int, dict[str, float]]]:
    """(step, {tag: value}) of a source's event files in `folder`, by the record format (length, crc, bytes, crc)."""
    found = []
    for path in sorted(folder.glob(f"{source}.*tfevents*")):
        content = path.read_bytes()
        while content:
            length = struct.unpack("<Q", content[:8])[0]
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.summary.value:
                found.append((event.step, {v.tag: v.simple_value for v in event.summary.value}))
    return found


def test_checkpoints_name_their_parent_and_their_datasets(files, tmp_path):
    run = train(SHORT, files, tmp_path / "run")
    first, second = (load_checkpoint(run.checkpoint(stage)) for stage in (1, 2))
    keys = {d["instruction"]: d["key"] for d in read_json(run.path / "data.json")}
    assert (first.metrics["parent"], second.metrics["parent"]) == (None, first.id)
    assert first.metrics["data"] == {"pick up the milk": keys["pick up the milk"]}
    assert second.metrics["data"] == keys
    assert len(set(keys.values())) == 2


def test_the_environment_is_recorded_at_every_start(files, tmp_path):
    with pytest.raises(Killed):
        train(SHORT, files[:1], tmp_path / "run", on_step=kill_at(1, 5))
    train(SHORT, files[:1], tmp_path / "run", resume=True)
    entries = read_json(tmp_path / "run" / "environment.json")
    assert len(entries) == 2
    assert entries[1]["packages"]["numpy"] == np.__version__
    assert entries[1]["threads"] == torch.get_num_threads()
    assert entries[1]["cores"] <= os.cpu_count()
    assert entries[1]["cpu"]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        assert entries[1]["source"].removesuffix("-dirty") == commit.stdout.strip()


def test_a_start_with_nothing_to_learn_leaves_no_environment(files, tmp_path):
    with pytest.raises(Killed):
        train(SHORT, files, tmp_path / "run", on_step=kill_at(2, 2))
    train(SHORT, files, tmp_path / "run", resume=True)
    entries = (tmp_path / "run" / "environment.json").read_text()
    assert len(json.loads(entries)["records"]) == 2  # starts, not stages
    train(SHORT, files, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "environment.json").read_text() == entries


def test_a_run_that_took_its_only_stage_from_another_one_names_no_environment(files, tmp_path):
    first = train(SHORT, files[:1], tmp_path / "first")
    run = train(SHORT, files[:1], tmp_path / "run", start_from=first.checkpoint(1))
    assert read_json(run.path / "environment.json") == []


def test_tensorboard_shows_every_logged_line_once_also_after_a_kill(files, tmp_path):
    with pytest.raises(Killed):
        train(SHORT, files, tmp_path / "run", on_step=kill_at(2, 6))  # step 5 and 6 come again
    run = train(SHORT, files, tmp_path / "run", resume=True)
    for stage in (1, 2):
        lines = [line for line in run.metrics() if line["stage"] == stage]
        shown = events(run.path / "tensorboard", f"stage_{stage}")
        assert [step for step, _ in shown] == [6 * (stage - 1) + line["step"] for line in lines]
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        for (_, values), line in zip(shown, lines, strict=True):
            logged = {name: x for name, x in line.items() if name not in ("stage", "step")}
            shares = {name: x for name, x in values.items() if name.startswith("gradient_share/")}
            assert values == pytest.approx(logged | shares, rel=1e-6)
            assert not shares or sum(shares.values()) == pytest.approx(1)


def test_kill_9_and_the_same_command_with_resume_give_the_same_run(files, tmp_path):
    """Kill a real process somewhere in the second stage.

    The leftovers of an unfinished write are created by hand, because no kill can be timed to hit one.
    """

    def command(out: Path) -> list[str]:
        return [
            sys.executable,
            "-c",
            "from m2distill_training.cli.main import main; main()",
            "train",
            "--preset",
            "debug",
            "--optim.budget",
            "60",
            "--data",
            *map(str, files),
            "--out",
            str(out),
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(command(killed), stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "stage 2/2" in line:
            break
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    (killed / "stages" / "2" / ".state.pt.1").write_bytes(b"half")
    (killed / "stages" / "2" / ".checkpoint.x" / "new").mkdir(parents=True)
    subprocess.run([*command(killed), "--resume"], check=True, capture_output=True, timeout=300)

    def lines(run: Path) -> list[dict]:
        return [{**line, "steps_per_s": None} for line in RunFolder(run).metrics()]

    def names(run: Path) -> set[str]:
        return {str(path.relative_to(run)) for path in run.rglob("*") if "tfevents" not in path.name}

    assert lines(killed) == lines(whole)
    assert names(killed) == names(whole)
    for stage in (1, 2):
        sums = [(RunFolder(run).checkpoint(stage) / "SHA256SUMS").read_bytes() for run in (whole, killed)]
        assert sums[0] == sums[1]
        steps = [step for step, _ in events(killed / "tensorboard", f"stage_{stage}")]
        assert steps == list(range(60 * stage - 59, 60 * stage + 1))


DISK_FULL = """
import resource, sys
from pathlib import Path
from m2distill_training.cli import main
from m2distill_training.engine import train as loop

def fill(self, stage, state, save=loop.RunFolder.save_state):
    if self.state(stage).is_file():  # the second save of the stage finds a disk with 2 kB left in every file
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
    save(self, stage, state)

loop.RunFolder.save_state = fill
sys.exit(main.run(sys.argv[1:]))
"""


def test_a_full_disk_ends_training_with_one_line_and_loses_nothing(files, tmp_path):
    """The limit on file size makes the system reject writes as a full disk does, in a separate process."""
    config = dataclasses.replace(SHORT, optim=dataclasses.replace(SHORT.optim, budget=9))
    out = tmp_path / "run"
    argv = ["train", "--preset", "debug", "--optim.budget", "9", "--data", str(files[0]), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, *argv], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "state.pt cannot be written (File too large); what was saved before is unchanged" in done.stderr
    assert RunFolder(out).load_state(1)["step"] == 4
    assert not list(out.rglob(".state*"))
    resumed = train(config, files[:1], out, resume=True)
    whole = train(config, files[:1], tmp_path / "whole")
    assert load_checkpoint(resumed.checkpoint(1)).id == load_checkpoint(whole.checkpoint(1)).id


def test_a_write_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    target = tmp_path / "folder" / "file"
    target.parent.mkdir()
    write_atomic(target, b"before")
    monkeypatch.setattr("m2distill_policy.utils.files.secrets.token_hex", lambda _: "0")
    (tmp_path / "folder" / ".file.0.tmp").mkdir()  # the temporary name is taken: the write cannot begin
    with pytest.raises(RunError, match="file cannot be written"):
        write_atomic(target, b"after")
    assert target.read_bytes() == b"before"


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[: len(b) // 2],
        lambda b: b"",
        lambda b: b[:-2000] + bytes([b[-2000] ^ 1]) + b[-1999:],
    ],
    ids=["last byte", "half", "empty", "one bit"],
)
def test_a_damaged_state_is_rejected_and_removing_it_repeats_the_stage(damage, files, tmp_path):
    with pytest.raises(Killed):
        train(SHORT, files[:1], tmp_path / "run", on_step=kill_at(1, 5))
    state = RunFolder(tmp_path / "run").state(1)
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(RunError, match="state.pt is damaged; .*remove it to repeat stage 1"):
        train(SHORT, files[:1], tmp_path / "run", resume=True)
    state.unlink()
    steps = []
    train(SHORT, files[:1], tmp_path / "run", resume=True, on_step=lambda p: steps.append(p.step))
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_truncated_checkpoint_is_rejected_and_nothing_is_written(files, tmp_path):
    with pytest.raises(Killed):
        train(SHORT, files, tmp_path / "run", on_step=kill_at(2, 5))
    weights = RunFolder(tmp_path / "run").checkpoint(1) / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    before = fingerprint(tmp_path / "run")
    with pytest.raises(CheckpointError, match="weights.safetensors does not match SHA256SUMS"):
        train(SHORT, files, tmp_path / "run", resume=True)
    assert fingerprint(tmp_path / "run") == before
    weights.write_bytes(whole)
    assert train(SHORT, files, tmp_path / "run", resume=True).checkpoint(2).is_dir()


@pytest.mark.parametrize(
    ("name", "said"), [("config.json", "config.json is damaged"), ("data.json", "data.json cannot be read")]
)
def test_a_truncated_record_is_rejected(name, said, files, tmp_path):
    train(SHORT, files[:1], tmp_path / "run")
    record = tmp_path / "run" / name
    record.write_text(record.read_text()[:-20])
    with pytest.raises(RunError, match=said):
        train(SHORT, files[:1], tmp_path / "run", resume=True)


def test_a_changed_dataset_is_named(files, tmp_path, libero_file):
    train(SHORT, files, tmp_path / "run")
    before = fingerprint(tmp_path / "run")
    changed = libero_file("b", instruction="open the drawer", seed=2)  # over the old one
    with pytest.raises(RunError, match=f"changed or missing: 'open the drawer' from {changed}; give the 2 files"):
        train(SHORT, [files[0], changed], tmp_path / "run", resume=True)
    assert fingerprint(tmp_path / "run") == before


def test_datasets_in_another_order_are_rejected(files, tmp_path):
    train(SHORT, files, tmp_path / "run")
    with pytest.raises(RunError, match="the same tasks in another number or order"):
        train(SHORT, files[::-1], tmp_path / "run", resume=True)


def test_a_line_cut_short_is_left_out_and_damage_before_it_is_told(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(RunError, match="is damaged"):
        read_lines(path)
    assert read_lines(tmp_path / "absent.jsonl") == []


def fingerprint(folder: Path) -> dict[str, str]:
    """sha256 of every file but the record of starts."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("environment.json", "lock")
    }
