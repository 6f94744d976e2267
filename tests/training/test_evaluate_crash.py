"""Evaluation whose processes are really killed and whose renderer really fails: nothing is lost, nothing is made up."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import psutil
import pytest
import torch

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.errors import RendererError, UserError
from m2distill_policy.models import Policy
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import libero_spec
from m2distill_sim.suites import HELD_OUT, find_task
from m2distill_training.evaluation.batched_policy import BatchedPolicy, EpisodePolicy
from m2distill_training.evaluation.episode_runner import _Cached, run_episodes
from m2distill_training.evaluation.evaluate import evaluate_checkpoint
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks, Rollouts, run_job
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec, make_specs
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
        "--environments",
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
        checkpoint, [TASK], EPISODES, tmp_path / "two", sampling="stochastic", max_steps=4, workers=2, environments=1
    )
    assert (one.pop("ran")["workers"], two.pop("ran")["workers"]) == (1, 2)
    assert one == two
    for name in (f"failure_libero_object_task0_state{state}.mp4" for state in (a, b, *others)):
        assert (tmp_path / "one/videos" / name).read_bytes() == (tmp_path / "two/videos" / name).read_bytes()


def test_a_killed_worker_loses_no_finished_episode_of_its_job(checkpoint, tmp_path):
    options = {"sampling": "stochastic", "max_steps": 30, "environments": 2}
    killed = []

    def kill() -> None:
        while not killed:
            for journal in tmp_path.glob("one/.episodes-*.part"):
                if len(journal.read_bytes().splitlines()) == 2:
                    (worker,) = (x for x in psutil.Process().children() if "spawn_main" in " ".join(x.cmdline()))
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    killer.start()
    one = evaluate_checkpoint(checkpoint, [TASK], EPISODES, tmp_path / "one", workers=1, **options)
    killer.join()
    again = [episode["state"] for episode in one.pop("ran")["repeated"]]
    assert 0 < len(again) <= EPISODES - 2
    assert [path.name for path in tmp_path.glob("one/.*")] == []
    assert len(read_lines(tmp_path / "one/episodes.jsonl")) == EPISODES
    two = evaluate_checkpoint(checkpoint, [TASK], EPISODES, tmp_path / "two", workers=0, **options)
    del two["ran"]
    assert one == two


def test_the_finished_episodes_of_an_interrupted_job_are_kept(checkpoint, tmp_path):
    specs = make_specs(checkpoint, [TASK], 3, "stochastic", 0, 2, None, None, environments=2)
    (job,) = Rollouts(specs, tmp_path / "episodes.jsonl").jobs()
    run_job(job.arguments[0][:2], job.arguments[1][:2], job.arguments[2])  # and Ctrl-C
    assert [spec.state for spec in Rollouts(specs, tmp_path / "episodes.jsonl").missing] == [HELD_OUT[2]]
    assert [path.name for path in tmp_path.iterdir()] == ["episodes.jsonl"]


@pytest.mark.parametrize("environments", [2, 3])
def test_an_episode_in_a_batch_depends_neither_on_its_company_nor_on_the_order(checkpoint, environments):
    specs = make_specs(checkpoint, [TASK], 7, "stochastic", 0, 6, "builtin", None, environments=environments)

    def ends(chosen: list[RolloutSpec]) -> dict[int, np.ndarray]:
        """The state of the simulator after every episode."""
        found = {}

        def note(result: RolloutResult) -> None:
            found[result.spec.state] = _Cached.envs[result.spec.state % environments].state()

        run_episodes(chosen, note)
        return found

    together = ends(specs)
    assert len(together) == 7
    for chosen in (specs[::-1], specs[1:6:2], *([spec] for spec in specs)):
        for state, end in ends(chosen).items():
            np.testing.assert_array_equal(end, together[state])


def test_a_batch_computes_what_the_policy_of_one_robot_does(checkpoint):
    """Also while the history grows, and with the same random draws."""
    rows = 3
    loaded = load_checkpoint(checkpoint)
    batched = BatchedPolicy(loaded, rows)
    alone = [InferencePolicy(loaded, "stochastic", seed=row) for row in range(rows)]
    shared = [EpisodePolicy(loaded.spec.history, "stochastic", row) for row in range(rows)]
    for policy in (*alone, *shared):
        policy.set_text(np.ones(8, np.float32))
    rng = np.random.default_rng(0)
    for step in range(8):
        live = [row for row in range(rows) if step >= 2 * row]  # one begins after the other
        seen = {
            row: Observation(
                {camera.name: rng.integers(0, 256, (16, 16, 3), np.uint8) for camera in loaded.spec.cameras},
                rng.normal(size=7).astype(np.float32),
                rng.uniform(0, 0.04, 2).astype(np.float32),
                step,
            )
            for row in live
        }
        samples = batched.step({row: (shared[row], seen[row]) for row in live})
        for row in live:
            expected = alone[row].step(seen[row])
            assert samples[row].mode == expected.mode
            np.testing.assert_allclose(samples[row].action, expected.action, atol=1e-5)
            assert samples[row].log_prob == pytest.approx(expected.log_prob, abs=1e-3)
            assert samples[row].entropy == pytest.approx(expected.entropy, abs=1e-4)


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
