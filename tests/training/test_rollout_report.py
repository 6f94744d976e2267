"""Closed loop in the real simulator with a network that has learned nothing, and the page made from it."""

import dataclasses
import os

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import pytest

from m2distill_policy.action import ActionSample
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.spec import libero_spec
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import HELD_OUT, find_task, initial_states
from m2distill_training.cli import main
from m2distill_training.engine.train import train
from m2distill_training.evaluation.evaluate import evaluate_run
from m2distill_training.evaluation.overlay import video_frame
from m2distill_training.evaluation.rollout import Episode, RolloutOutcome
from m2distill_training.evaluation.rollout_specs import is_filmed, make_specs
from m2distill_training.evaluation.run_specs import find_tasks
from m2distill_training.presets import debug
from m2distill_training.report import write_report
from m2distill_training.runs.records import read_json

SUITE = "libero_object"
CAMERAS = {"agentview": (16, 16), "wrist": (16, 16)}


class Scripted:
    """A policy that plays back a list of actions."""

    def __init__(self, actions):
        self.actions, self.step_number, self.observations = actions, 0, []

    def reset(self):
        self.step_number, self.observations = 0, []

    def set_text(self, embedding_L):
        pass

    def step(self, observation):
        self.observations.append(observation)
        self.step_number += 1
        return ActionSample(self.actions[self.step_number - 1], 0, 0.0, 0.0)


def run_episode(env, session, *arguments, **options) -> RolloutOutcome:
    episode = Episode(env, session, *arguments, **options)
    while episode.outcome is None:
        episode.take(session.tick(episode.feed()))
    return episode.outcome


@pytest.fixture(scope="module")
def env():
    with LiberoEnv(SUITE, 0, cameras=CAMERAS) as env:
        yield env


def test_an_episode_equals_the_same_actions_given_to_the_simulator_directly(env):
    """Action -> Command in SI units -> action loses nothing, and the session sees what the simulator shows."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (6, 7)).astype(np.float32)
    state = initial_states(SUITE, 0)[HELD_OUT[0]]
    env.reset(state)
    direct = [env.observe()] + [env.step(action.astype(np.float64)) for action in actions]

    policy = Scripted(actions)
    session = PolicySession(libero_spec(16, text_encoder="test", text_width=1), policy, {"go": np.zeros(1, np.float32)})
    episode = run_episode(env, session, "go", state, max_steps=6, record=True)
    assert (episode.success, episode.steps, episode.held) == (False, 6, "")
    for seen, shown in zip(policy.observations, direct[:-1], strict=True):
        np.testing.assert_allclose(seen.joint, shown.joint_positions, atol=1e-6)
        np.testing.assert_allclose(seen.gripper, shown.gripper_positions, atol=1e-6)
        np.testing.assert_array_equal(seen.images["wrist"], shown.images["wrist"][::-1])
    np.testing.assert_allclose(env.observe(render=False).joint_positions, direct[-1].joint_positions, atol=1e-6)
    frames = list(episode.frames())
    assert frames[0].shape == (256 + 2 * 32, 512, 3)
    assert len(frames) == 6


def test_an_action_that_is_not_finite_ends_the_episode_with_its_reason(env):
    actions = np.zeros((2, 7), np.float32)
    actions[1, 0] = np.nan
    session = PolicySession(
        libero_spec(16, text_encoder="test", text_width=1), Scripted(actions), {"go": np.zeros(1, np.float32)}
    )
    episode = run_episode(env, session, "go", initial_states(SUITE, 0)[HELD_OUT[0]], max_steps=5)
    assert (episode.success, episode.steps) == (False, 1)
    assert "not finite" in episode.held


def test_a_run_is_evaluated_and_reported(libero_file, tmp_path, capsys):
    files = [libero_file(str(task), instruction=find_task(SUITE, task).instruction, seed=task) for task in (1, 0)]
    config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
    run = train(config, files, tmp_path / "run").path
    with pytest.raises(UserError, match="m2distill evaluate"):
        write_report(tmp_path / "report.html", [run])
    evaluation = evaluate_run(run, [SUITE], 1, sampling="mode", max_steps=2, workers=0)
    assert evaluation == read_json(run / "evaluation.json")
    assert [[t["task"] for t in stage["tasks"]] for stage in evaluation["stages"]] == [[1], [1, 0]]
    assert evaluation["matrix"] == [[0.0, None], [0.0, 0.0]]
    episode = evaluation["stages"][1]["tasks"][0]["runs"][0]
    assert (episode["steps"], episode["held"], episode["state"]) == (2, "", HELD_OUT[0])
    assert evaluation["stages"][0]["tasks"][0]["runs"][0]["video"] is None

    assert main.run(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2
    assert page.count("data:image/svg+xml;base64,") == 3  # comparison, forgetting, losses
    assert find_task(SUITE, 0).instruction in page
    assert not any(link in page for link in ('src="http', 'href="http', "<script"))

    capsys.readouterr()
    words = ["--suite", SUITE, "--tasks", "1", "--episodes", "1", "--max-steps", "2", "--workers", "1"]
    assert main.run(["evaluate", str(run / "stages/2/checkpoint"), *words, "--out", str(tmp_path / "alone")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"next: m2distill report {tmp_path / 'alone'}"
    assert main.run(["report", str(tmp_path / "alone"), str(run), "--out", str(tmp_path / "both.html")]) == 0
    page = (tmp_path / "both.html").read_text()
    assert "run/stages/2" in page and page.count("data:video/mp4;base64,") == 3
    assert main.run(["report", str(tmp_path / "alone")]) == 0
    assert find_task(SUITE, 1).instruction in (tmp_path / "alone/report.html").read_text()


def test_only_held_out_states_are_used(tmp_path):
    tasks = [find_task(SUITE, task) for task in (0, 1)]
    jobs = make_specs(tmp_path, tasks, 10, "stochastic", 0, 600, None, tmp_path)
    assert {job.state for job in jobs} == set(HELD_OUT)
    assert sum(is_filmed(job, success=True) for job in jobs) == 2
    assert all(is_filmed(job, success=False) for job in jobs)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"tasks": []}, "at least one"),
        ({"tasks": [2, 3, 2]}, "tasks [2, 3, 2] given, expected at least one and none twice"),
        ({"seed": -1}, "seed is -1"),
        ({"max_steps": 0}, "max_steps is 0"),
    ],
)
def test_episodes_out_of_range_or_repeated_are_rejected(tmp_path, wrong, said):
    asked = {"tasks": [0], "episodes": 1, "sampling": "stochastic", "seed": 0, "max_steps": 600} | wrong
    asked["tasks"] = [find_task(SUITE, task) for task in asked["tasks"]]
    with pytest.raises(UserError) as error:
        make_specs(tmp_path, **asked, assets=None, videos=None)
    assert said in str(error.value)


def test_tasks_are_found_by_their_instruction_in_the_first_suite_that_has_it():
    said = find_task("libero_goal", 7).instruction, f" {find_task(SUITE, 2).instruction.upper()}. "
    found = find_tasks([SUITE, "libero_goal"], said)
    assert [(task.suite, task.index) for task in found] == [("libero_goal", 7), (SUITE, 2)]
    with pytest.raises(UserError, match="no task of libero_object is 'fly'"):
        find_tasks([SUITE], ["fly"])
    with pytest.raises(UserError, match="unknown suite"):
        find_tasks(["libero_objects"], ["fly"])


def test_the_mixture_is_drawn_into_the_video():
    """A column per mode, as high as its weight; the mode that acted in colour."""
    images = {name: np.zeros((16, 16, 3), np.uint8) for name in CAMERAS}
    sample = ActionSample(np.zeros(7, np.float32), 1, 0.0, 0.5, (0.25, 0.75))
    strip = video_frame(images, "go", sample)[256 + 32 :].astype(int)
    filled = [(strip[:, left + 3] > 0).any(-1).sum() for left in (6, 18)]
    assert 15 <= filled[1] <= 19 and 6 <= filled[0] <= 9  # of 22 px, outline included
    coloured = [(strip[:, left + 3, 1] > 200).any() for left in (6, 18)]
    assert coloured == [False, True]
    np.testing.assert_array_equal(strip, video_frame(images, "stop", sample)[256 + 32 :])
    assert (video_frame(images, "go", None)[256 + 32 :] != strip).any()
