"""`m2distill demo` from end to end with a network that learns nothing.

It covers the collection, both trainings, the ROS 2 processes, the instructions, the summary and the report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT_S = 300


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The output folder, the command that created it and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    command = [
        str(Path(sys.executable).with_name("m2distill")),
        "demo",
        "--out",
        str(out),
        "--demos",
        "1",
        "--episodes",
        "1",
        "--max-steps",
        "20",
        "--preset",
        "debug",
    ]
    environment = {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return out, command, done


def test_the_table_counts_old_and_new_task_for_method_and_control(demo):
    printed = demo[2].stdout
    assert "old task" in printed and "new task" in printed
    assert printed.count("0 of 1  (0% to 79%)") == 4


def test_a_policy_that_learned_nothing_fails_the_demo_in_one_line(demo):
    line = "m2distill: demo failed: old task 0 of 1, new task 0 of 1, expected at least 80% of each task"
    assert demo[2].stderr.splitlines()[-1] == line


def test_the_summary_holds_every_trial_of_the_second_stage(demo):
    out, _, _ = demo
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["evaluations"]) == {"m2distill", "finetune"}
    for evaluation in summary["evaluations"].values():
        assert [[len(task["runs"]) for task in stage["tasks"]] for stage in evaluation["stages"]] == [[1], [1, 1]]
        assert evaluation["stages"][1]["tasks"][0]["runs"][0]["steps"] == 20
    ids = [evaluation["stages"][0]["checkpoint_id"] for evaluation in summary["evaluations"].values()]
    assert ids[0] == ids[1]  # the control shares the first stage


def test_the_report_is_one_file_with_a_video_of_each_task(demo):
    out, _, _ = demo
    page = (out / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 6  # three cells of the matrix, method and control
    assert 'src="http' not in page and 'href="http' not in page


def test_a_second_run_skips_finished_work(demo):
    out, command, _ = demo
    made = [path for path in out.rglob("*") if path.name in ("trials.json", "weights.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in made}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1, done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
