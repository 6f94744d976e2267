"""Continual retraining as a routine: learn one more task, prove that none was lost, promote, roll back."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.errors import CheckpointError, DataError
from m2distill_training.cli import main
from m2distill_training.config import ConfigError
from m2distill_training.data.replay import random_order
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.engine import continue_run
from m2distill_training.engine.continue_run import learn
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.promotion.gate import Thresholds, _by_simulation
from m2distill_training.promotion.promotion import current, promote, rollback
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder

LENIENT = Thresholds(nats=100.0, drift=100.0)  # for what the debug network is not judged by


def config(**replay):
    base = debug()
    return dataclasses.replace(base, replay=dataclasses.replace(base.replay, held_out_demos=1, **replay))


@pytest.fixture
def run(libero_file, tmp_path):
    """Two tasks learned, their files gone."""
    files = [libero_file(name, instruction=f"task {name}", seed=i, demos=4) for i, name in enumerate("ab")]
    run = train(config(), files, tmp_path / "run")
    for path in files:
        path.unlink()
    shutil.rmtree(tmp_path / ".m2distill_cache")
    return run


@pytest.fixture
def new_task(libero_file):
    return libero_file("c", instruction="task c", seed=2, demos=4)


def test_a_run_keeps_what_further_stages_need(run):
    for i, name in enumerate("ab"):
        replay, held_out = (
            load_task_memory(run.memory(i, kind), run.data()[i], CAMERA_NAMES) for kind in ("replay", "held_out")
        )
        order = random_order(4, debug().seed, i)
        assert json.loads((run.memory(i, "replay") / "task.json").read_text())["demos"] == order[:1]
        assert json.loads((run.memory(i, "held_out") / "task.json").read_text())["demos"] == order[-1:]
        assert replay.store.instruction == held_out.store.instruction == f"task {name}"
        assert replay.store.n_demos == 1


def test_a_further_task_is_learned_from_the_run_s_memory_alone(run, new_task):
    assert learn(run.path, new_task) == 3
    checkpoint = load_checkpoint(run.checkpoint(3))
    assert set(checkpoint.instructions) == {"task a", "task b", "task c"}
    assert checkpoint.metrics["parent"] == load_checkpoint(run.checkpoint(2)).id
    assert checkpoint.metrics["strategy"] == "m2distill"
    assert set(read_json(run.path / "stages" / "3" / "replay.json")) == {"task a", "task b"}
    last = run.metrics()[-1]
    assert {"image", "text", "extra", "policy"} <= last.keys()  # the teacher was asked
    assert len(load_task_memory(run.memory(2, "held_out"), run.data()[2], CAMERA_NAMES).chosen) == 1
    assert learn(run.path, new_task.with_name("c_demo.hdf5"), instruction="task d") == 4  # and so on


def test_further_tasks_replay_what_one_training_of_all_would(libero_file, tmp_path):
    files = [libero_file(name, instruction=f"task {name}", seed=i, demos=5) for i, name in enumerate("abcd")]
    settings = config(demos_per_task=3, total_demos=3)
    whole = train(settings, files, tmp_path / "whole")
    run = train(settings, files[:2], tmp_path / "run")
    for path in files[2:]:
        learn(run.path, path)
    for stage in range(1, 5):
        replayed = load_checkpoint(run.checkpoint(stage)).metrics["replayed_demos"]
        assert replayed == load_checkpoint(whole.checkpoint(stage)).metrics["replayed_demos"]
        assert replayed == read_json(run.path / "stages" / str(stage) / "replay.json")
        assert sorted(map(len, replayed.values())) == [[], [3], [1, 2], [1, 1, 1]][stage - 1]


def test_kill_9_and_the_same_command_give_the_same_weights(run, new_task, tmp_path):
    shutil.copytree(run.path, tmp_path / "other")
    learn(run.path, new_task)
    code = f"""
import os, signal
from pathlib import Path
from m2distill_training.engine.continue_run import learn
def on_step(progress):
    if progress.step == 6:
        os.kill(os.getpid(), signal.SIGKILL)
learn(Path({str(tmp_path / "other")!r}), Path({str(new_task)!r}), on_step=on_step)
"""
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(RunError, match="has begun to learn 'task c' .* repeat that"):
        learn(tmp_path / "other", new_task, held_out=2)
    learn(tmp_path / "other", new_task)
    a, b = (load_checkpoint(RunFolder(path).checkpoint(3)).state_dict for path in (run.path, tmp_path / "other"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_task_that_was_given_up_leaves_the_next_one_its_place(run, new_task, libero_file):
    stage = run.path / "stages" / "3"
    stage.mkdir()
    (stage / "checkpoint").touch()  # the stage's last write fails
    with pytest.raises(CheckpointError, match="3/checkpoint exists and is not a checkpoint"):
        learn(run.path, new_task)
    with pytest.raises(RunError, match=f"or remove {stage} and the task's entry in data.json to cancel it"):
        learn(run.path, new_task, held_out=2)
    shutil.rmtree(stage)
    run.write_json("data.json", run.data()[:2])
    learn(run.path, libero_file("d", instruction="task d", seed=3, demos=4), held_out=2)
    kept = {kind: read_json(run.memory(2, kind) / "task.json") for kind in ("replay", "held_out")}
    order = random_order(4, debug().seed, 2)
    assert {kind: task["demos"] for kind, task in kept.items()} == {"replay": order[:1], "held_out": order[-2:]}
    assert {(task["instruction"], task["key"]) for task in kept.values()} == {("task d", run.data()[2]["key"])}


def test_a_rejected_task_is_learned_again_from_more_demonstrations(run, new_task, libero_file, monkeypatch):
    learn(run.path, new_task)
    old = load_checkpoint(run.checkpoint(3)).id
    with pytest.raises(RunError, match="learned 'task c' last, and only that can be learned again"):
        learn(run.path, libero_file("d", instruction="task d", seed=3, demos=4), again=True)
    with pytest.raises(RunError, match="knows 'task c' already; .* or replace the run's last stage with --again"):
        learn(run.path, libero_file("more", instruction="task c", seed=4, demos=6))
    with pytest.raises(RunError, match="from these demonstrations already"):
        learn(run.path, new_task, again=True)

    more = new_task.with_name("more_demo.hdf5")
    monkeypatch.setattr(continue_run, "_begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        learn(run.path, more, again=True)  # as if killed when the old stage was moved
    monkeypatch.undo()
    assert learn(run.path, more, again=True) == 3
    assert [entry["demos"] for entry in run.data()] == [4, 4, 6]
    assert load_checkpoint(run.checkpoint(3)).metrics["parent"] == load_checkpoint(run.checkpoint(2)).id
    assert load_checkpoint(run.checkpoint(3)).id != old
    (aside,) = (run.path / "replaced").glob("3_*/checkpoint")
    assert load_checkpoint(aside).id == old
    assert load_task_memory(run.memory(2, "replay"), run.data()[2], CAMERA_NAMES).store.key == run.data()[2]["key"]
    stage_3 = [line["step"] for line in run.metrics() if line["stage"] == 3]
    assert stage_3 == sorted(set(stage_3))  # those of the stage that was replaced are gone

    promote(run.path, thresholds=LENIENT, suites=())
    with pytest.raises(RunError, match="stage 3 of .* was deployed, so it is not replaced"):
        learn(run.path, libero_file("most", instruction="task c", seed=5, demos=7), again=True)


def test_what_m2distill_train_learned_is_not_learned_again(run, libero_file):
    with pytest.raises(RunError, match="learned 'the tasks of m2distill train' last"):
        learn(run.path, libero_file("b2", instruction="task b", seed=6, demos=5), again=True)


def test_a_memory_of_another_task_is_rejected(run, new_task):
    for kind in ("replay", "held_out"):
        shutil.rmtree(run.memory(1, kind))
        shutil.copytree(run.memory(0, kind), run.memory(1, kind))
    with pytest.raises(DataError, match="memory/1/replay holds demos of 'task a', expected 'task b'"):
        learn(run.path, new_task)
    with pytest.raises(DataError, match="memory/1/held_out holds demos of 'task a', expected 'task b'"):
        promote(run.path, 2, thresholds=LENIENT, suites=())


def test_what_cannot_be_learned_is_rejected(run, new_task, libero_file, tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        learn(tmp_path, new_task)
    with pytest.raises(RunError, match="knows 'task a' already"):
        learn(run.path, new_task, instruction="task a")
    with pytest.raises(RunError, match="holds 4 demos, of which 4 would be held out"):
        learn(run.path, new_task, held_out=4)
    assert len(read_json(run.path / "data.json")) == 2  # nothing was begun
    with pytest.raises(DataError, match="got 8x8 px"):
        learn(run.path, libero_file("small", instruction="task e", size_px=8))
    with (run.path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="being trained by another process"):
            learn(run.path, new_task)


def test_a_checkpoint_that_kept_its_tasks_is_promoted_and_rolled_back(run, new_task):
    assert current(run.path) is None
    promote(run.path, 2, thresholds=LENIENT, suites=())
    learn(run.path, new_task)
    promotion = promote(run.path, thresholds=dataclasses.replace(LENIENT), suites=())
    assert [(f.instruction, f.new) for f in promotion.checks] == [
        ("task a", False),
        ("task b", False),
        ("task c", True),
    ]
    assert load_checkpoint((run.path / "current").resolve()).id == promotion.checkpoint_id
    proof = read_json(run.path / "stages" / "3" / "proof.json")
    assert proof["against_stage"] == 2
    assert rollback(run.path) == 2
    assert current(run.path) == 2
    with pytest.raises(RunError, match="no promotion to go back to"):
        rollback(run.path)


def test_a_checkpoint_that_lost_a_task_is_rejected_by_name_and_forced_on_record(run, new_task):
    """Another network's weights in place of the learned ones: certain to have lost something."""
    promote(run.path, 2, thresholds=LENIENT, suites=())
    learn(run.path, new_task, strategy="finetune")
    folder = run.checkpoint(3)
    learned = load_checkpoint(folder)
    generator = torch.Generator().manual_seed(0)
    spoiled = {name: torch.randn(x.shape, generator=generator) for name, x in learned.state_dict.items()}
    shutil.rmtree(folder)
    save_checkpoint(folder, dataclasses.replace(learned, state_dict=spoiled))
    with pytest.raises(RunError, match=r"stage 3 is not promoted: earlier task 'task a' has log-likelihood .* needs"):
        promote(run.path, thresholds=Thresholds(), suites=())
    assert current(run.path) == 2
    assert promote(run.path, thresholds=Thresholds(), suites=(), force=True).forced
    assert current(run.path) == 3
    lines = [json.loads(line) for line in (run.path / "promotions.jsonl").read_text().splitlines()]
    assert [(line["action"], line["stage"], line["forced"]) for line in lines] == [
        ("promote", 2, False),
        ("promote", 3, True),
    ]


def test_without_simulation_or_held_out_demos_nothing_is_proven(libero_file, tmp_path):
    run = train(debug(), [libero_file("a", instruction="task a")], tmp_path / "run")
    with pytest.raises(RunError, match="'task a' has no simulation and no held-out demos"):
        promote(run.path, thresholds=Thresholds(), suites=())


def test_a_damaged_checkpoint_is_never_promoted(run):
    promote(run.path, 1, thresholds=LENIENT, suites=())
    weights = run.checkpoint(2) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(Exception, match="weights.safetensors"):
        promote(run.path, 2, thresholds=LENIENT, suites=(), force=True)
    assert current(run.path) == 1


@pytest.mark.parametrize(("writes", "stands"), [(1, 1), (2, 2), (3, 2)])
def test_killed_between_two_writes_a_promotion_has_happened_or_has_not(run, writes, stands):
    """Of the proof, the record and the link, so many are written."""
    promote(run.path, 1, thresholds=LENIENT, suites=())
    code = f"""
import os, pathlib, signal
from pathlib import Path
from m2distill_training.promotion.promotion import promote
from m2distill_training.promotion.gate import Thresholds
written = 0
def counted(rename):
    def call(*paths):
        global written
        if written == {writes}:
            os.kill(os.getpid(), signal.SIGKILL)
        written += 1
        rename(*paths)
    return call
os.rename, os.replace = counted(os.rename), counted(os.replace)
if accessor := getattr(pathlib, "_NormalAccessor", None):  # Python 3.10 keeps its own references
    accessor.rename, accessor.replace = staticmethod(os.rename), staticmethod(os.replace)
promote(Path({str(run.path)!r}), 2, thresholds=Thresholds(nats=100.0, drift=100.0), suites=())
os.rename("one", "more")
"""
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert current(run.path) == (2 if writes == 3 else 1)
    if stands == 1:
        with pytest.raises(RunError, match="no promotion to go back to"):
            rollback(run.path)
    else:
        assert promote(run.path, 2, thresholds=LENIENT, suites=()).stage == current(run.path) == 2
        assert rollback(run.path) == current(run.path) == 1
    lines = [json.loads(line) for line in (run.path / "promotions.jsonl").read_text().splitlines()]
    assert [(line["action"], line["stage"]) for line in lines] == [
        ("promote", 1),
        *([("promote", 2), ("promote", 2), ("rollback", 1)] if stands == 2 else []),
    ]


def test_two_promotions_at_once_are_rejected(run):
    with (run.path / "promotion.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process is promoting"):
            promote(run.path, thresholds=LENIENT, suites=())


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [((20, 20), (20, 20), True), ((20, 20), (19, 20), True), ((20, 20), (18, 20), False), ((10, 10), (9, 10), False)],
)
def test_an_earlier_task_passes_if_a_loss_of_the_margin_is_ruled_out(before, after, passed):
    check = _by_simulation("x", False, Thresholds(), episodes(*before), episodes(*after))
    assert check.passed is passed
    assert f"a loss of up to {check.loss_bound:.2f} is not ruled out" in check.describe()


def episodes(successes, n):
    return [True] * successes + [False] * (n - successes)


def test_a_new_task_has_a_bar_of_its_own():
    assert _by_simulation("x", True, Thresholds(success=0.5), None, episodes(5, 10)).passed
    assert not _by_simulation("x", True, Thresholds(success=0.5), None, episodes(4, 10)).passed


def test_thresholds_are_numbers():
    with pytest.raises(ConfigError, match="nats is nan"):
        Thresholds(nats=float("nan"))


@pytest.mark.parametrize("command", ["learn", "promote", "rollback"])
def test_help_teaches(command, capsys):
    assert main.run([command, "--help"]) == 0
    assert re.search(rf"examples?: m2distill {command} ", " ".join(capsys.readouterr().out.split()))
