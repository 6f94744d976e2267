"""A study from demonstrations to tables, in the real simulator, with networks that learn nothing."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import dataclasses
import importlib.util
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_sim.suites import find_task
from m2distill_training.cli import main
from m2distill_training.evaluation.compare import compare
from m2distill_training.experiments.study import SuiteGraph, study
from m2distill_training.experiments.study_jobs import train_stage
from m2distill_training.experiments.study_plan import (
    VARIANTS,
    Comparison,
    Plan,
    SuitePlan,
    Variant,
    make_plan,
    read_plan,
)
from m2distill_training.experiments.study_results import _tables, study_runs
from m2distill_training.report.runs import load_runs
from m2distill_training.runs.records import read_json, read_lines
from m2distill_training.runs.run_folder import RunFolder

SETTINGS = {
    "strategies": ["er", "no_text"],
    "seeds": [3],
    "suites": [{"suite": "libero_object", "tasks": [0, 1]}],
    "preset": "debug",
    "replay": 1,
    "first_budget": "4 steps",
    "budget": "2 steps",
    "episodes": 1,
    "max_steps": 2,
    "curve_points": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_libero) -> Path:
    """A folder of noise for four tasks."""
    folder = tmp_path_factory.mktemp("downloads")
    for index in range(4):
        task = find_task("libero_object", index)
        write_libero(folder / f"{task.name}_demo.hdf5", f"another wording of task {index}", demos=2, seed=index)
    return folder


@pytest.fixture(scope="module")
def results_script():
    """The program that copies figures of a study into the documentation."""
    spec = importlib.util.spec_from_file_location("results", Path(__file__).parents[2] / "scripts/results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan_of(data: Path, **changes):
    suite = {"suite": "libero_object", "tasks": [0, 1], "data": str(data)}
    return make_plan({**SETTINGS, "suites": [suite], **changes}, "plan")


def test_a_study_compares_variants_from_one_first_stage_and_may_be_added_to(data, tmp_path, capfd, results_script):
    out = tmp_path / "study"
    assert not study(out, plan_of(data), workers=2, limit_s=0)  # nothing has begun
    assert main.run(["study", "--status", str(out)]) == 0
    printed = capfd.readouterr().out
    assert "0 of 12 parts done, 0 failed" in printed and "not running; repeat" in printed
    assert "left: first, seed 3, stage 1: train" in printed

    assert study(out, plan_of(data), workers=2)
    assert "12 of 12 parts done, 0 failed" in (main.run(["study", "--status", str(out)]), capfd.readouterr().out)[1]
    folders = {name: RunFolder(out / "runs" / f"{name}-3") for name in ("first", "er", "no_text")}
    shared = {load_checkpoint(folder.checkpoint(1)).id for folder in folders.values()}
    assert len(shared) == 1
    steps = {name: [line["step"] for line in folder.metrics()][-1] for name, folder in folders.items()}
    assert steps == {"first": 4, "er": 2, "no_text": 2}
    assert read_json(folders["no_text"].path / "config.json")["strategy_config"]["text"] == 0.0
    assert folders["er"].data()[1]["instruction"] == find_task("libero_object", 1).instruction  # not that of the file
    ran = {name: len(read_lines(folder.path / "episodes.jsonl")) for name, folder in folders.items()}
    # Before and after each stage: the first run's 2 are not repeated, nor is the end of a curve.
    assert ran == {"first": 2, "er": 5, "no_text": 5}
    assert "| no_text | er |" in (out / "comparison.md").read_text().replace("  ", " ")

    figures = tmp_path / "figures"
    assert results_script.take(out, figures) == ["er-3", "no_text-3"] and results_script.take(out, figures) == []
    assert compare([figures]) == compare([out])
    assert [run.environments[0]["cores"] for run in load_runs([figures / "runs/er-3"])] == [os.cpu_count()]

    assert study(out, plan_of(data, strategies=["er", "multitask"]), workers=1)
    assert len(read_lines(folders["er"].path / "episodes.jsonl")) == ran["er"]  # nothing was repeated
    runs = {run["variant"]: run for run in read_json(out / "results.json")["runs"]}
    assert list(runs) == ["er", "multitask", "no_text"]
    assert runs["er"]["matrix"] == [[0.0, None], [0.0, 0.0]] and runs["multitask"]["matrix"] == [[0.0]]
    assert runs["er"]["libero_metrics"]["auc"] == 0.0 and runs["er"]["episodes"] == 2
    tables = (out / "results.md").read_text()
    assert "| er | 3 | 0 (" in tables and "1 of them replayed; 1 episodes" in tables
    assert (out / "report.html").is_file()

    with pytest.raises(UserError, match=r"holds a study of other settings: tasks \[0, 1\] \(requested: \[1, 0\]\)"):
        suite = {"suite": "libero_object", "tasks": [1, 0], "data": str(data)}
        study(out, plan_of(data, suites=[suite]))


def test_one_run_of_a_plan_is_repeated_alone_to_the_same_weights(data, tmp_path):
    whole, alone = tmp_path / "whole", tmp_path / "alone"
    plan = plan_of(data, strategies=["finetune", "er"], seeds=[3, 4])
    for out, only in ((whole, ["libero_object/er-4", "finetune-4"]), (alone, ["er-4"])):
        assert study(out, plan, workers=2, only=only)
    assert {path.name for path in (alone / "runs").iterdir()} == {"first-4", "er-4"}
    assert {path.name for path in (whole / "runs").iterdir()} == {"first-4", "er-4", "finetune-4"}
    ids = [load_checkpoint(RunFolder(out / "runs/er-4").checkpoint(2)).id for out in (whole, alone)]
    assert ids[0] == ids[1]
    assert study(alone, plan_of(data, strategies=["er"], seeds=[4]), workers=1)  # nothing is left of it


def test_a_training_that_is_stopped_continues_to_the_same_weights(data, tmp_path):
    def run_of(out: Path):
        budgets = {"budget": "20 steps", "first_budget": "20 steps"}
        plan = plan_of(data, **budgets, strategies=["ewc"], overrides={"save_every": 7})
        activities = SuiteGraph(out, plan, plan.suites[0], "cpu", out / "stop").activities()
        return next(each for each in activities if "train" in each.name)._run

    whole, parts = run_of(tmp_path / "whole"), run_of(tmp_path / "parts")
    assert train_stage(whole, 1)
    parts.stop_file.parent.mkdir()
    parts.stop_file.touch()
    assert not train_stage(parts, 1)
    assert parts.folder.state(1).is_file() and not parts.folder.checkpoint(1).exists()
    parts.stop_file.unlink()
    assert train_stage(parts, 1)
    assert not parts.folder.checkpoint(2).exists()  # the end of the stage that was requested
    assert load_checkpoint(whole.folder.checkpoint(1)).id == load_checkpoint(parts.folder.checkpoint(1)).id


def test_the_time_limit_of_the_command_stops_a_training_at_a_saved_state(data, tmp_path, capfd):
    file, out = tmp_path / "plan.yaml", tmp_path / "study"
    suite = {"suite": "libero_object", "tasks": [0, 1], "data": str(data)}
    file.write_text(yaml.safe_dump({**SETTINGS, "suites": [suite], "first_budget": "100000 steps", "seeds": [0]}))
    began = time.monotonic()
    assert main.run(["study", str(file), "--out", str(out), "--for", "8s", "--workers", "1"]) == 0
    assert 8 <= time.monotonic() - began < 60
    assert "the time is over; repeat the command to continue" in capfd.readouterr().out
    assert (out / "runs/first-0/stages/1/state.pt").is_file()
    status = read_json(out / "status.json")
    steps = max(line["step"] for line in RunFolder(out / "runs/first-0").metrics())
    assert 0 < status["costs"]["train first"] * steps < 60  # seconds: known before the first stage has ended
    assert status["left"][0] == "first, seed 0, stage 1: train" and not status["running"]
    assert main.run(["study", str(file), "--out", str(out), "--seeds", "1"]) == 2
    assert f"--seeds is given beside {file}; write it in the plan" in capfd.readouterr().err


def test_a_plan_says_budgets_protocol_and_overrides(data, tmp_path):
    changes = {
        "suites": [{"suite": "libero_object", "tasks": [0, 1, 2, 3], "data": str(data)}],
        "strategies": [
            "multitask",
            "packnet",
            {
                "strategy": "m2distill",
                "name": "gentle",
                "options": {"image": 0.5},
                "overrides": {"optim.later_lr": 0.3, "optim.min_lr": 1e-6},
            },
        ],
        "budget": "3 epochs",
        "first_budget": "3 epochs",
        "overrides": {
            "optim.lr": 0.002,
            "optim.min_lr": 1e-5,
            "protocol.stage_tasks": [2, 1, 1],
            "protocol.stage_demos": [1],
        },
    }
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump({**SETTINGS, **changes}))
    plan = read_plan(file)
    plan.check()
    suite, (joint, alone, gentle) = plan.suites[0], plan.strategies
    config = plan.config(suite, gentle, 5)
    assert (config.optim.budget, config.optim.budget_unit, config.optim.lr, config.seed) == (3, "epochs", 0.002, 5)
    assert (config.protocol.stage_tasks, config.replay.demos_per_task) == ((2, 1, 1), 1)
    assert config.strategy_config.image == 0.5
    assert (config.optim.later_lr, config.optim.min_lr) == (0.3, 1e-6)  # the variant's come last
    assert plan.first_config(suite, 5).optim == dataclasses.replace(config.optim, later_lr=1.0, min_lr=1e-5)
    assert plan.config(suite, joint, 5).optim.budget == 3
    assert plan.first_config(suite, 5).protocol.stage_tasks == (2,)
    assert not alone.shares_first_stage and gentle.shares_first_stage
    names = [each.name for each in SuiteGraph(tmp_path, plan, suite, "cpu", tmp_path / "stop").activities()]
    assert [name for name in names if "train" in name] == [
        "first, seed 3, stage 1: train",
        "multitask, seed 3, stage 1: train",
        *(f"packnet, seed 3, stage {stage}: train" for stage in (1, 2, 3)),
        *(f"gentle, seed 3, stage {stage}: train" for stage in (1, 2, 3)),
    ]


def test_a_folder_of_one_suite_is_not_continued_with_several(data, tmp_path):
    one = plan_of(data)
    two = make_plan(
        {**SETTINGS, "suites": [{"suite": name, "tasks": [0, 1]} for name in ("libero_object", "libero_goal")]}, "p"
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one/study.json").write_text("{}")
    with pytest.raises(UserError, match="holds a study of one suite, this plan has 2"):
        study(tmp_path / "one", two, workers=1)
    (tmp_path / "two/libero_goal").mkdir(parents=True)
    (tmp_path / "two/libero_goal/study.json").write_text("{}")
    with pytest.raises(UserError, match="holds a study of several suites, this plan has one"):
        study(tmp_path / "two", one, workers=1)


def test_the_page_has_a_valid_plan_and_every_key():
    page = (Path(__file__).parents[2] / "docs/cluster.md").read_text()
    make_plan(yaml.safe_load(re.search(r"```yaml\n(strategies.*?)```", page, re.S)[1]), "the page").budgets()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    for model in (Plan, SuitePlan, Variant, Comparison):
        assert set(model.model_fields) <= named


def test_the_plan_of_the_results_is_valid():
    plan = read_plan(Path(__file__).parents[2] / "docs/results/plan.yaml")
    plan.check()
    assert plan.starts == "choice"
    budgets = {v.name: plan.config(plan.suites[0], v, 0).optim.budget for v in plan.strategies}
    assert budgets["er_long"] > budgets["er"] == budgets["m2distill"]


def test_the_page_of_results_is_written_from_the_figures(results_script):
    text = results_script.PAGE.read_text()
    assert results_script.page(text) == text, "run python scripts/results.py and commit docs/results.md"
    plans = {path.stem for path in results_script.RESULTS.glob("*.yaml")}
    assert {found[1] for found in results_script.SECTION.finditer(text)} == plans and "plan" in plans


def test_a_plan_of_several_suites_has_a_part_for_each(results_script, tmp_path, monkeypatch):
    """The figures of one suite, taken for two: of the second, no run has ended yet."""
    study, results, images = (tmp_path / name for name in ("study", "results", "images"))
    shutil.copytree(results_script.RESULTS / "decoders", study / "libero_object")
    (study / "libero_goal").mkdir()
    shutil.copy(study / "libero_object/study.json", study / "libero_goal")
    plan = (results_script.RESULTS / "decoders.yaml").read_text()
    for name, value in (("RESULTS", results), ("IMAGES", images)):
        value.mkdir()
        monkeypatch.setattr(results_script, name, value)
    (results / "both.yaml").write_text(plan.replace("suites:\n", "suites:\n  - libero_goal\n"))
    taken = results_script.take(study, results / "both")
    assert "libero_object/er-2" in taken and not any("goal" in name for name in taken)
    assert results_script.take(study, results / "both") == []
    results_script.draw("both")
    assert [path.name for path in images.iterdir()] == ["results_both_libero_object.svg"]
    text = results_script.section("both")
    assert text.startswith(f"{len(taken)} of 36 runs have ended.")
    assert "**LIBERO-GOAL**\n\nNo run has ended." in text and "(images/results_both_libero_object.svg)" in text
    assert "\n| after 2 | 82, 98 | " in text  # of er: means over the six seeds
    monkeypatch.setattr(results_script, "MOST_COLUMNS", 4)
    text = results_script.section("both")
    assert "\n| after 2 | 90 | " in text and "\n| each task after 5 | " in text


def test_variants_are_known_by_their_folders(tmp_path):
    for name, strategy in (("mine.Best-0", "mine:Best"), ("gentle-0", "m2distill"), ("er-1", "er")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text(f'{{"schema": 1, "strategy": "{strategy}", "seed": 0}}')
    assert [name for name, _ in study_runs(tmp_path)] == ["er", "gentle", "mine:Best"]


def test_means_are_over_seeds_with_a_t_interval():
    """FWT 0.8, 0.9 and 1.0: 0.9 +- 4.303 * 0.1 / sqrt(3), at most 1.

    A variant of one run of one stage has no NBT and no mean.
    """

    def result(variant: str, seed: int, fwt: float, nbt: float | None) -> dict:
        metrics = {"fwt": fwt, "nbt": nbt, "auc": fwt}
        intervals = {name: None if x is None else [0.0, 1.0] for name, x in metrics.items()}
        counts = {"variant": variant, "seed": seed, "successes": 1, "episodes": 2, "matrix": [[fwt]]}
        return counts | {"metrics": metrics, "intervals_95": intervals, "libero_metrics": None}

    plan = make_plan(SETTINGS, "plan")
    runs = [result("er", seed, 0.8 + 0.1 * seed, 0.1) for seed in range(3)] + [result("multitask", 0, 0.5, None)]
    lines = _tables(plan.settings(plan.suites[0], "cpu"), runs).splitlines()
    assert "| er | mean of 3 seeds | 90 (65 to 100) | 10 (10 to 10) | 90 (65 to 100) |  |  |" in lines
    assert not any("multitask | mean" in line for line in lines)


def one_suite(**changes) -> dict:
    return {"suites": [{"suite": "libero_object", "tasks": [0, 1], **changes}]}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"strategies": ["lwf"]}, f"variant 'lwf'.*{'.*'.join(sorted((*VARIANTS, 'ewc', 'packnet')))}"),
        ({"strategies": []}, "plan: strategies: tuple should have at least 1 item"),
        ({"strategies": ["er", "er"]}, "er, er given, expected none twice"),
        ({"strategies": [{"strategy": "er", "name": "first"}]}, "name 'first' cannot name a folder"),
        ({"strategies": [{"strategy": "m2distill", "options": {"imge": 1.0}}]}, "imge.*image"),
        ({"strategies": [{"strategie": "er"}]}, "strategies.0.strategy: field required"),
        ({"strategies": ["ewc"]}, "needs more of the first stage.*give first_budget and budget the same value"),
        (one_suite(tasks=[1]), "at least two"),
        (one_suite(tasks=[1, 1]), "none twice"),
        (one_suite(tasks=[0, 10]), "no task 10"),
        (one_suite(task=[0]), "unknown key 'suites.0.task'.*tasks"),
        (one_suite(suite="libero_10"), "no scripted expert for libero_10"),
        (one_suite(data="/nowhere"), "data /nowhere is no folder"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds.0: input should be greater than or equal to 0"),
        ({"episodes": 0}, "episodes: input should be greater than or equal to 1"),
        ({"episods": 3}, "unknown key 'episods'.*did you mean.*episodes"),
        ({"preset": "huge"}, "huge"),
        ({"protocol": "ten_steps"}, "learns 10 tasks in stages of .*, libero_object has 2 here"),
        ({"budget": 1000}, "1000 given, expected a text such as 1000 steps or 50 epochs"),
        ({"budget": "5 epochs"}, "first_budget is 4 steps, budget 5 epochs"),
        ({"overrides": {"optim.learning_rate": 1.0}}, "unknown override 'optim.learning_rate'.*optim.lr"),
        ({"overrides": {"optim.lr": "fast"}}, "overrides: .*lr"),
        ({"overrides": {"curve_points": 2}}, "curve_points is set by the key curve_points of the plan"),
        ({"overrides": {"optim.budget": 2}}, "optim.budget is set by the key budget of the plan"),
        ({"comparisons": [{"baseline": "er", "candidate": "mine"}]}, "comparisons: unknown strategy 'mine'"),
        ({"strategies": [{"strategy": "er", "budget": "5 epochs"}]}, "budget of er is 5 epochs, budget 2 steps"),
        ({"strategies": [{"strategy": "er", "overrides": {"optim.later": 0.5}}]}, "unknown override 'optim.later'"),
        ({"starts": "all"}, "starts: input should be 'report' or 'choice'"),
    ],
)
def test_what_cannot_be_studied_is_rejected_before_anything_is_made(changes, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        study(tmp_path / "study", make_plan({**SETTINGS, **changes}, "plan"))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["absent.yaml"], "there is no plan absent.yaml"),
        (["--for", "soon"], "--for is 'soon', expected a number with s, m or h"),
        (["--status", "nowhere"], "nowhere holds no study that was started"),
        (["--only", "er-7"], "--only: unknown run 'er-7'; did you mean 'er-"),
    ],
)
def test_wrong_words_are_one_line(words, complaint, capsys):
    assert main.run(["study", *words]) == 2
    assert complaint in capsys.readouterr().err
