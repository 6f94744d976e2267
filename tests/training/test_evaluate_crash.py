"""Evaluation whose processes are really killed and whose renderer really fails: nothing is lost, nothing is made up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import psutil
import pytest
import torch

from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import RendererError, UserError
from m2distill_policy.models import Policy
from m2distill_policy.spec import libero_spec
from m2distill_sim.suites import HELD_OUT, find_task
from m2distill_training.evaluation.evaluate import evaluate_checkpoint
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks
from m2distill_training.execution.executor import ATTEMPTS, Executor, run_jobs
from m2distill_training.execution.jobs import Job
from m2distill_training.execution.local import LocalBackend
from m2distill_training.presets import debug
from m2distill_training.runs.records import read_json, read_lines

TASK = find_task("libero_object", 0)
EPISODES = 5  # enough for a Ctrl-C after the second to come before the last
NO_EGL = "/nonexistent/egl_vendor.json"  # with this vendor file libEGL finds no driver


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """An untrained policy that knows one task and acts by drawing from its mixture."""
    torch.manual_seed(0)
    spec, model = libero_spec(16, 4, "none", 8), debug().model
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(
        path, Checkpoint(spec, model, Policy(model, spec).state_dict(), {TASK.instruction: np.ones(8, np.float32)})
    )
    return path


def evaluate(checkpoint: Path, out: Path, interrupt_after: int | None = None) -> tuple[list[str], int]:
    """The command with one worker, which is killed with signal 9 in its second episode; and Ctrl-C after so many lines.
    What it printed, and its exit code."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # ignored in the background
        "from m2distill_training.cli.main import main; main()"
    )
    argv = [
        sys.executable,
        "-c",
        code,
        "evaluate",
        str(checkpoint),
        "--episodes",
        str(EPISODES),
        "--max-steps",
        "4",
        "--workers",
        "1",
        "--sampling",
        "stochastic",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if len(lines) == 1 and interrupt_after:
            (worker,) = (
                child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
            )
            os.kill(worker.pid, signal.SIGKILL)
        if len(lines) == interrupt_after:
            process.send_signal(signal.SIGINT)
    return lines, process.wait(timeout=60)


def test_a_killed_worker_and_an_interrupted_command_change_nothing(checkpoint, tmp_path):
    """One worker that is killed, and then Ctrl-C, and then the same command; against two workers left in peace."""
    a, b, *others = HELD_OUT[:EPISODES]
    lines, code = evaluate(checkpoint, tmp_path / "one", interrupt_after=3)
    assert lines[0] == f"1/{EPISODES}  libero_object task 0 state {a}: failure after 4 steps"
    assert f"libero_object task 0 state {b}: once more, for a worker process was killed by signal 9" in lines[1]
    assert lines[2] == f"2/{EPISODES}  libero_object task 0 state {b}: failure after 4 steps"
    assert (lines[-1], code) == ("m2distill: interrupted; repeat the same command to continue", 130)
    assert not (tmp_path / "one/evaluation.json").exists()
    lines, code = evaluate(checkpoint, tmp_path / "one")
    assert not any(f"state {done}:" in line for line in lines for done in (a, b))  # what is finished is not repeated
    assert code == 0
    one = read_json(tmp_path / "one/evaluation.json")
    assert [(run["state"], run["steps"]) for run in one["tasks"][0]["runs"]] == [
        (state, 4) for state in (a, b, *others)
    ]

    two = evaluate_checkpoint(
        checkpoint, [TASK], EPISODES, tmp_path / "two", sampling="stochastic", max_steps=4, workers=2
    )
    assert (one.pop("ran")["workers"], two.pop("ran")["workers"]) == (1, 2)
    assert one == two
    for name in (f"failure_libero_object_task0_state{state}.mp4" for state in (a, b, *others)):
        assert (tmp_path / "one/videos" / name).read_bytes() == (tmp_path / "two/videos" / name).read_bytes()


def test_a_renderer_that_fails_costs_a_repetition_and_no_zero(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", NO_EGL)

    def mend(job, reason):
        assert read_lines(tmp_path / "episodes.jsonl") == []
        monkeypatch.delenv("__EGL_VENDOR_LIBRARY_FILENAMES")

    evaluation = evaluate_checkpoint(
        checkpoint, [TASK], 1, tmp_path, max_steps=2, workers=1, callbacks=ProgressCallbacks(repeat=mend)
    )
    (again,) = evaluation["ran"]["repeated"]
    assert again["state"] == HELD_OUT[0] and "no offscreen renderer" in again["reason"]
    assert evaluation["tasks"][0]["episodes"] == len(read_lines(tmp_path / "episodes.jsonl")) == 1


KILL = "__import__('os').kill(__import__('os').getpid(), 9)"
EXIT = "__import__('os')._exit(3)"
DRAW = """exec('from m2distill_sim.renderer import Renderer, mujoco; '
              'Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 8, 8)')"""
REJECT = "exec('from m2distill_policy.errors import UserError; raise UserError(\"fix this\")')"


@pytest.mark.parametrize(
    ("job", "kind", "said", "attempts"),
    [
        (KILL, UserError, "killed by signal 9, perhaps for lack of memory", ATTEMPTS),
        (EXIT, UserError, "ended with status 3", ATTEMPTS),
        (DRAW, RendererError, "no offscreen renderer with MUJOCO_GL=egl: .*install libegl1", ATTEMPTS),
        (REJECT, UserError, "fix this", 1),
        ("1 / 0", RuntimeError, "ZeroDivisionError: division by zero", ATTEMPTS),
    ],
)
def test_a_job_that_always_fails_ends_all_with_its_reason(job, kind, said, attempts, monkeypatch):
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", NO_EGL)
    results, repeats = [], []
    with pytest.raises(kind, match=said), Executor(LocalBackend(1)) as executor:
        executor.on_repeat = lambda job, _: repeats.append(job.name)
        run_jobs(executor, jobs("6 * 7", job), lambda outcome: results.append(outcome.value))
    assert (results, repeats) == ([42], ["1"] * (attempts - 1))


def jobs(*expressions: str) -> list[Job]:
    return [Job(str(number), eval, (expression,)) for number, expression in enumerate(expressions)]


def test_results_come_in_the_order_of_the_jobs():
    with Executor(LocalBackend(2)) as executor:
        assert run_jobs(executor, jobs("sum(range(10**6)) and 1", "2", "3", "4")) == [1, 2, 3, 4]
