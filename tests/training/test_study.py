"""A study from demonstrations to tables, in the real simulator, with networks that learn nothing."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.experiments.study import VARIANTS, Study, _tables, study
from m2distill_training.runs.records import read_json, read_lines
from m2distill_training.runs.run_folder import RunFolder

SETTINGS = {
    "suite": "libero_object",
    "tasks": (0, 1),
    "demos": 2,
    "replay": 1,
    "first_budget": 4,
    "budget": 2,
    "episodes": 1,
    "max_steps": 2,
    "curve_points": 1,
    "preset": "debug",
}


def test_a_study_compares_variants_from_one_first_stage_and_may_be_added_to(tmp_path, capfd):
    out = tmp_path / "study"
    study(out, Study(**SETTINGS), ("er", "no_text"), (3,), workers=1)
    folders = {name: RunFolder(out / "runs" / f"{name}-3") for name in ("first", "er", "no_text")}
    shared = {load_checkpoint(folder.checkpoint(1)).id for folder in folders.values()}
    assert len(shared) == 1
    steps = {name: [line["step"] for line in folder.metrics()][-1] for name, folder in folders.items()}
    assert steps == {"first": 4, "er": 2, "no_text": 2}
    assert read_json(folders["no_text"].path / "config.json")["strategy_config"]["text"] == 0.0
    ran = {name: len(read_lines(folder.path / "episodes.jsonl")) for name, folder in folders.items()}
    # Before and after each stage: the first run's 2 are not repeated, nor is the end of a curve.
    assert ran == {"first": 2, "er": 5, "no_text": 5}
    assert read_json(folders["er"].path / "evaluation.json")["ran"]["episodes"] == 3

    study(out, Study(**SETTINGS), ("er", "multitask"), (3,), workers=1)
    assert len(read_lines(folders["er"].path / "episodes.jsonl")) == ran["er"]  # nothing was repeated
    runs = {run["variant"]: run for run in read_json(out / "results.json")["runs"]}
    assert list(runs) == ["er", "multitask", "no_text"]
    assert runs["er"]["matrix"] == [[0.0, None], [0.0, 0.0]] and runs["multitask"]["matrix"] == [[0.0]]
    assert runs["er"]["libero_metrics"]["auc"] == 0.0 and runs["er"]["episodes"] == 2
    tables = (out / "results.md").read_text()
    assert "| er | 3 | 0 (" in tables and "1 of them replayed; 1 episodes" in tables
    assert (out / "report.html").is_file()

    capfd.readouterr()
    assert main.run(["study", "--out", str(out), "--tasks", "1", "0"]) == 2
    assert "holds a study of other settings: tasks [0, 1] (requested: [1, 0])" in capfd.readouterr().err


def test_means_are_over_seeds_with_a_t_interval():
    """FWT 0.8, 0.9 and 1.0: 0.9 +- 4.303 * 0.1 / sqrt(3). A variant of one run of one stage has no NBT and no mean."""

    def result(variant: str, seed: int, fwt: float, nbt: float | None) -> dict:
        metrics = {"fwt": fwt, "nbt": nbt, "auc": fwt}
        intervals = {name: None if x is None else [0.0, 1.0] for name, x in metrics.items()}
        counts = {"variant": variant, "seed": seed, "successes": 1, "episodes": 2, "matrix": [[fwt]]}
        return counts | {"metrics": metrics, "intervals_95": intervals, "libero_metrics": None}

    runs = [result("er", seed, 0.8 + 0.1 * seed, 0.1) for seed in range(3)] + [result("multitask", 0, 0.5, None)]
    lines = _tables(SETTINGS, runs).splitlines()
    assert "| er | mean of 3 seeds | 90 (65 to 115) | 10 (10 to 10) | 90 (65 to 115) |  |  |" in lines
    assert not any("multitask | mean" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"variants": ("lwf",)}, f"variant 'lwf'.*{'.*'.join(sorted((*VARIANTS, 'ewc', 'packnet')))}"),
        ({"tasks": (1,)}, "at least two"),
        ({"tasks": (1, 1)}, "none twice"),
        ({"seeds": ()}, "at least one of --variants"),
        ({"tasks": (0, 10)}, "no task 10"),
        ({"episodes": 0}, "episodes is 0"),
        ({"seeds": (-1,)}, "seeds is -1"),
        ({"preset": "huge"}, "huge"),
    ],
)
def test_what_cannot_be_studied_is_rejected_before_anything_is_made(options, complaint, tmp_path):
    variants, seeds = options.pop("variants", ("er",)), options.pop("seeds", (0,))
    with pytest.raises(UserError, match=complaint):
        study(tmp_path / "study", Study(**SETTINGS | options), variants, seeds)
    assert not (tmp_path / "study").exists()
