"""The checks of `m2distill demo` before it begins and at its end; tests/e2e runs the whole of it."""

import dataclasses
import shutil
import signal

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.cli import main
from m2distill_training.engine.train import train
from m2distill_training.execution.executor import Executor
from m2distill_training.experiments.demo import shortfall
from m2distill_training.experiments.demo_training import config_of, learn_first, learn_second
from m2distill_training.runs.run_folder import RunFolder

SMALL = ["demo", "--demos", "1", "--episodes", "1", "--max-steps", "5", "--preset", "debug"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--tasks", "0", "0"], "two different tasks"),
        (["--tasks", "0", "12"], "no task 12 (allowed: 0 to 9)"),
        (["--episodes", "11"], "1 to 10 episodes"),
        (["--max-steps", "0"], "max_steps is 0, expected at least 1"),
        (["--demos", "0"], "demos is 0, expected at least 1"),
        (["--seed", "-1"], "seed is -1, expected at least 0"),
        (["--preset", "smal"], "unknown preset 'smal'; did you mean 'small'?"),
        (["--out", "/dev/null/demo"], "Not a directory"),
    ],
)
def test_what_would_stop_a_later_stage_is_reported_before_the_first(changed, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.run([*SMALL, *changed]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "summary.json").write_text("mine")
    assert main.run([*SMALL, "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no demo" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("summary.json", "mine")]


def test_a_demo_is_not_gone_on_with_under_other_settings(tmp_path, capsys):
    """Else the trials of before would be counted as those that are asked for now."""
    (tmp_path / "demo.json").write_text(
        '{"tasks": [0, 1], "demos": 1, "episodes": 5, "max_steps": 5, "preset": "debug", "seed": 0}'
    )
    assert main.run([*SMALL, "--out", str(tmp_path)]) == 2
    assert "other settings: episodes 5 (requested: 1); choose another --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["demo.json"]


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        (5, 4, ""),
        (3, 5, "old task 3 of 5, expected at least 80% of each task"),
        (3, 0, "old task 3 of 5, new task 0 of 5, expected at least 80% of each task"),
    ],
)
def test_the_demo_requires_four_of_five_successes_on_old_and_new_task(old, new, missed):
    tasks = [{"successes": n, "episodes": 5} for n in (old, new)]
    assert shortfall({"stages": [{"tasks": tasks[:1]}, {"tasks": tasks}]}) == missed


@pytest.fixture
def files(libero_file):
    return [libero_file(f"{i}", instruction=text, seed=i) for i, text in enumerate(("pick up the milk", "close it"))]


def ids_of(folder) -> list[str]:
    return [load_checkpoint(RunFolder(folder).checkpoint(stage)).id for stage in (1, 2)]


def test_method_and_control_learn_side_by_side_what_they_learn_one_after_the_other(files, tmp_path):
    configs = {strategy: config_of("debug", 0, strategy) for strategy in ("m2distill", "finetune")}
    folders = {strategy: tmp_path / "2" / strategy for strategy in configs}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        method = train(configs["m2distill"], files, tmp_path / "method")
        control = train(configs["finetune"], files, tmp_path / "control", start_from=method.checkpoint(1))
        learn_first(configs["m2distill"], folders["m2distill"], files)
    finally:
        torch.set_num_threads(threads)
    shutil.copytree(tmp_path / "2", tmp_path / "1")
    for workers in (1, 2):
        folders = {strategy: tmp_path / str(workers) / strategy for strategy in configs}
        learn_second(configs, folders, files, workers)
        assert ids_of(folders["m2distill"]) == ids_of(method.path)
        assert ids_of(folders["finetune"]) == ids_of(control.path)
        assert not (tmp_path / f"{workers}/.stop").exists()


def test_ctrl_c_saves_the_state_of_both_trainings(files, tmp_path, monkeypatch):
    configs = {strategy: config_of("debug", 0, strategy) for strategy in ("m2distill", "finetune")}
    long = {
        name: dataclasses.replace(x, optim=dataclasses.replace(x.optim, budget=100000), save_every=100000)
        for name, x in configs.items()
    }
    folders = {strategy: tmp_path / "demo" / strategy for strategy in configs}
    one = dataclasses.replace(configs["m2distill"].optim, budget=1)
    first = train(dataclasses.replace(configs["m2distill"], optim=one), files, tmp_path / "first", last_stage=1)
    train(long["m2distill"], files, folders["m2distill"], start_from=first.checkpoint(1), last_stage=1)
    completed, raised = Executor.completed, []

    def interrupting(self, timeout_s=None):
        if not raised and all((folder / "metrics.jsonl").is_file() for folder in folders.values()):
            raised.append(signal.raise_signal(signal.SIGINT))
        return completed(self, timeout_s)

    monkeypatch.setattr(Executor, "completed", interrupting)
    with pytest.raises(KeyboardInterrupt):
        learn_second(long, folders, files, 2)
    assert all(RunFolder(folder).state(2).is_file() for folder in folders.values())
