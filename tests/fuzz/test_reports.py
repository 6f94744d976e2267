"""Files of run folders and studies that reports read, the trials of a demo, and the file of finished episodes."""

import dataclasses
import json

import numpy as np
import pytest
from damage import byte_edits, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Link, Reader

from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, ResNetStage, small
from m2distill_policy.spec import libero_spec
from m2distill_sim.suites import HELD_OUT, assets_of, find_task
from m2distill_training.evaluation import rollout_jobs
from m2distill_training.evaluation.compare import compare
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks, run_rollouts
from m2distill_training.evaluation.rollout_specs import make_specs
from m2distill_training.experiments.demo import _read_trials
from m2distill_training.experiments.study_plan import make_plan
from m2distill_training.experiments.study_results import write_results
from m2distill_training.presets import debug
from m2distill_training.report.runs import load_runs
from m2distill_training.runs.provenance import result_versions
from m2distill_training.runs.records import begin_folder, write_atomic

RUN = "runs/er-0"
INSTRUCTION = "put $x_$ and $^$ in"
TASK = {
    "instruction": INSTRUCTION,
    "suite": "libero_object",
    "task": 0,
    "assets": "builtin",
    "successes": 1,
    "episodes": 2,
    "success_rate": 0.5,
    "wilson_95": [0.1, 0.9],
    "runs": [
        {"state": 40, "success": False, "steps": 9, "held": "", "video": "videos/a.mp4"},
        {"state": 41, "success": True, "steps": 9, "held": "", "video": None},
    ],
}
EVALUATION = {
    "episodes_per_task": 2,
    "sampling": "mode",
    "max_steps": 9,
    "stages": [{"checkpoint_id": "x", "tasks": [TASK]}] * 2,
    "matrix": [[0.5, None], [0.5, 0.5]],
    "metrics": {"fwt": 0.5, "nbt": 0.0, "auc": 0.5},
    "intervals_95": {"fwt": [0.1, 0.9], "nbt": [-0.2, 0.2], "auc": [0.1, 0.9]},
    "libero_metrics": {"fwt": 0.5, "nbt": 0.0, "auc": 0.5},
}  # optional
DRIFT = {"entries": [{"learned_in_stage": 1, "stage": 2, "policy_kl": 0.1, "relative": {"text": 0.2}}]}
ENVIRONMENTS = [
    {"python": "3", "cpu": "x", "cores": 2, "threads": 1, "gpus": ["y"], "source": None, "packages": {"torch": "2"}}
] * 2
METRICS = [{"stage": k, "step": step, "bc": 0.5, "steps_per_s": 9.0} for k in (1, 2) for step in (1, 2)]
PLAN = make_plan(
    {"strategies": ["er"], "seeds": [0], "suites": [{"suite": "libero_object", "tasks": [0, 1]}], "preset": "debug"},
    "plan",
)
STUDY = PLAN.settings(PLAN.suites[0], "cpu")
DOCUMENTS = {
    "study.json": STUDY,
    f"{RUN}/evaluation.json": EVALUATION,
    f"{RUN}/drift.json": DRIFT,
    f"{RUN}/environment.json": ENVIRONMENTS,
    f"{RUN}/config.json": json.loads(debug().to_json()),
    f"{RUN}/data.json": [{"path": "a.hdf5", "key": "a", "instruction": INSTRUCTION, "demos": 3}],
}


def lines(documents) -> bytes:
    return b"".join(to_json(document) + b"\n" for document in documents)


GOOD = {
    **{name: to_json(document) for name, document in DOCUMENTS.items()},
    f"{RUN}/metrics.jsonl": lines(METRICS),
    f"{RUN}/videos/a.mp4": b"film",
}
READ = [name for name in GOOD if not name.endswith("mp4")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    with Reader(write_results, tmp_path_factory.mktemp("report")) as reader:
        yield reader


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Reader of the same files as `report` that draws nothing, in a hundredth of the time."""
    with Reader(lambda case: load_runs([case / RUN]), tmp_path_factory.mktemp("runs")) as reader:
        yield reader


def test_a_valid_study_is_accepted(report, runs):
    assert runs.judge(GOOD) == ""
    assert report.judge(GOOD) == ""
    page = (report.folder / "case/report.html").read_text()
    assert page.count("data:image/svg+xml") == 4 and "data:video/mp4;base64,ZmlsbQ==" in page


def compare_two(case) -> None:
    """Compare the run with a valid one."""
    valid = case / "valid"
    for name in ("evaluation.json", "config.json", "data.json", "environment.json"):
        write_atomic(valid / name, GOOD[f"{RUN}/{name}"])
    compare([f"a={case / RUN}", f"b={valid}"], resamples=100)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    with Reader(compare_two, tmp_path_factory.mktemp("comparison")) as reader:
        yield reader


def test_a_valid_run_is_compared(comparison):
    assert comparison.judge(GOOD) == ""


@fuzzed(100, name=st.sampled_from([f"{RUN}/evaluation.json", f"{RUN}/config.json"]), edits=value_edits)
def test_changed_values_of_a_comparison(comparison, name, edits):
    comparison.judge({**GOOD, name: edited(name, edits)})


def edited(name: str, edits: list[tuple]) -> bytes:
    if name in DOCUMENTS:
        return to_json(edit_values(DOCUMENTS[name], edits))
    changed = edit_values(METRICS, edits)
    return lines(changed) if isinstance(changed, list) else to_json(changed)


@fuzzed(20, name=st.sampled_from(READ), edits=value_edits)  # few: drawing is slow
def test_changed_values_of_a_report(report, name, edits):
    report.judge({**GOOD, name: edited(name, edits)})


@fuzzed(20, name=st.sampled_from(READ), edits=byte_edits)
def test_damaged_bytes_of_a_report(report, name, edits):
    report.judge({**GOOD, name: edit_bytes(GOOD[name], edits)})


@fuzzed(100, name=st.sampled_from(READ), edits=value_edits)
def test_changed_values_of_runs(runs, name, edits):
    runs.judge({**GOOD, name: edited(name, edits)})


@fuzzed(80, name=st.sampled_from(READ), edits=byte_edits)
def test_damaged_bytes_of_runs(runs, name, edits):
    runs.judge({**GOOD, name: edit_bytes(GOOD[name], edits)})


@pytest.mark.parametrize(
    "change",
    [
        {"libero_metrics": None},
        {"libero_metrics": {"fwt": 0.5, "nbt": None, "auc": 0.5}},
        {"matrix": [[0.5]]},
        {"matrix": [[0.5], [0.5, 0.5]]},
        {"intervals_95": {"fwt": None, "nbt": None, "auc": None}},
        {"stages": []},
        {"stages": [{"checkpoint_id": "x", "tasks": [{**TASK, "successes": 3}]}] * 2},
    ],
)
def test_an_inconsistent_evaluation_is_rejected(runs, change):
    content = to_json({**EVALUATION, **change})
    assert "evaluation.json is damaged or of another version" in runs.judge({**GOOD, f"{RUN}/evaluation.json": content})


@pytest.mark.parametrize("name", READ)
def test_deeply_nested_json_is_rejected(report, name):
    deep = b'{"a": ' * 900 + b"1" + b"}" * 900  # Python's JSON reads it but cannot write it with an indent
    good = GOOD[name]
    content = good.replace(b"{", b'{"deep": ' + deep + b", ", 1)
    assert f"{name} is damaged" in report.judge({**GOOD, name: content})


@pytest.mark.parametrize("loss", [1e308, float("-inf"), float("nan")])
def test_extreme_losses_are_drawn(report, loss):
    assert report.judge({**GOOD, f"{RUN}/metrics.jsonl": lines([*METRICS, {**METRICS[-1], "bc": loss}])}) == ""


def test_the_largest_values_and_longest_texts_are_drawn(report):
    long, large = "$x_" * 333, 9e11
    task = {**TASK, "instruction": long, "wilson_95": [-large, large]}
    evaluation = {
        **EVALUATION,
        "stages": [{"checkpoint_id": "x", "tasks": [task]}] * 2,
        "metrics": dict.fromkeys(("fwt", "nbt", "auc"), large),
        "intervals_95": {name: [-large, large] for name in ("fwt", "nbt", "auc")},
    }
    moved = {"learned_in_stage": 10**11, "stage": 0, "policy_kl": -large, "relative": {long: large, "": -large}}
    assert (
        report.judge(
            {
                **GOOD,
                f"{RUN}/evaluation.json": to_json(evaluation),
                f"{RUN}/drift.json": to_json({"entries": [moved, *DRIFT["entries"]]}),
                f"{RUN}/data.json": to_json([{"path": "\0", "key": "\ud800", "instruction": long, "demos": 10**11}]),
                f"{RUN}/metrics.jsonl": lines([{"stage": 10**11, "step": 10**11, long: 0}, *METRICS]),
            }
        )
        == ""
    )


@pytest.mark.parametrize("video", ["/etc/passwd", "../study.json", "x" * 300 + ".mp4", "a\0.mp4", "/a.mp4"])
def test_a_video_path_outside_the_run_is_rejected(report, video):
    task = {**TASK, "runs": [{**TASK["runs"][0], "video": video}]}
    evaluation = {**EVALUATION, "stages": [{"checkpoint_id": "x", "tasks": [task]}] * 2}
    assert f"again: m2distill evaluate {report.folder}/case/{RUN}" in report.judge(
        {**GOOD, f"{RUN}/evaluation.json": to_json(evaluation)}
    )


# The file of finished episodes

SOUP = find_task("libero_object", 0)
SPEC = libero_spec(size_px=16, history=2, text_encoder="none", text_width=4)
CONFIG = dataclasses.replace(
    small(),
    stem_width=4,
    stages=(ResNetStage(4, 1, 1),),
    keypoints=2,
    width=4,
    layers=1,
    heads=1,
    head_width=2,
    mlp_width=4,
    mixture_hidden=4,
    modes=2,
)
VIDEOS = {f"videos/failure_{state}.mp4": b"" for state in HELD_OUT[:2]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Path of a checkpoint, and the records of two episodes of it."""
    path = tmp_path_factory.mktemp("policy") / "checkpoint"
    name = save_checkpoint(
        path,
        Checkpoint(SPEC, CONFIG, Policy(CONFIG, SPEC).state_dict(), {SOUP.instruction: np.ones(4, np.float32)}, {}),
    )
    return path, [
        {
            "checkpoint_id": name,
            "suite": SOUP.suite,
            "task": SOUP.index,
            "state": state,
            "sampling": "mode",
            "seed": 0,
            "max_steps": 9,
            "environments": 1,
            "assets": assets_of(SOUP.suite).identity(),
            "versions": result_versions(),
            "success": False,
            "steps": 9,
            "held": "",
            "video": video,
        }
        for state, video in zip(HELD_OUT, VIDEOS, strict=False)
    ]


@pytest.fixture(scope="module")
def episodes(checkpoint, tmp_path_factory):
    def begin(missing: int) -> None:
        if missing:
            raise UserError(f"{missing} episodes would be run")

    def read(case):
        jobs = make_specs(checkpoint[0], [SOUP], 2, "mode", 0, 9, None, case / "videos")
        assert len(run_rollouts(jobs, 0, case / "episodes.jsonl", ProgressCallbacks(begin=begin))) == 2

    found = result_versions()
    with pytest.MonkeyPatch.context() as patch:  # most of the time would be spent on the packages' metadata
        patch.setattr(rollout_jobs, "result_versions", lambda: found)
        with Reader(read, tmp_path_factory.mktemp("episodes")) as reader:
            yield reader


def test_finished_episodes_are_accepted(episodes, checkpoint):
    assert episodes.judge({"episodes.jsonl": lines(checkpoint[1]), **VIDEOS}) == ""


@fuzzed(100, edits=value_edits)
def test_changed_values_of_episodes(episodes, checkpoint, edits):
    changed = edit_values(checkpoint[1], edits)
    content = lines(changed) if isinstance(changed, list) else to_json(changed)
    episodes.judge({"episodes.jsonl": content, **VIDEOS})


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_episodes(episodes, checkpoint, edits):
    episodes.judge({"episodes.jsonl": edit_bytes(lines(checkpoint[1]), edits), **VIDEOS})


# A demo: its settings and its trials

ASKED = {"tasks": [0, 1], "episodes": 2, "trials": 1, "max_steps": 9, "preset": "debug", "seed": 0}
TRIALS = [{"task": task, "initial_state": 40, "success": True, "steps": 9, "video": None} for task in (0, 1)]
DEMO = {"demo.json": ASKED, "trials.json": TRIALS}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    def read(case):
        begin_folder(case, "demo", ASKED)
        _read_trials(case / "trials.json", [0, 1], [40])

    with Reader(read, tmp_path_factory.mktemp("demo")) as reader:
        yield reader


def test_a_valid_demo_is_accepted(demo):
    assert demo.judge({name: to_json(document) for name, document in DEMO.items()}) == ""


@fuzzed(100, name=st.sampled_from(list(DEMO)), edits=value_edits)
def test_changed_values_of_a_demo(demo, name, edits):
    demo.judge({n: to_json(edit_values(document, edits) if n == name else document) for n, document in DEMO.items()})


@fuzzed(60, name=st.sampled_from(list(DEMO)), edits=byte_edits)
def test_damaged_bytes_of_a_demo(demo, name, edits):
    demo.judge(
        {n: edit_bytes(to_json(document), edits) if n == name else to_json(document) for n, document in DEMO.items()}
    )


@pytest.mark.parametrize("trials", [[], TRIALS[:1], TRIALS[::-1], [*TRIALS, TRIALS[0]]])
def test_trials_of_another_demo_are_rejected(demo, trials):
    assert "remove it to run these trials again" in demo.judge(
        {"demo.json": to_json(ASKED), "trials.json": to_json(trials)}
    )


def test_a_demo_with_a_broken_link_for_settings_is_rejected(demo):
    assert "choose another --out" in demo.judge({"demo.json": Link("nothing"), "trials.json": to_json(TRIALS)})
