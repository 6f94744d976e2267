"""Evaluation of a run in the real simulator, of a network that has learned nothing: what is run, kept and reported."""

import dataclasses
import json
import os
import shutil
from importlib.metadata import version

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np
import pytest

from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.errors import AssetError, UserError
from m2distill_sim.assets import find_assets
from m2distill_sim.suites import HELD_OUT, find_task, held_out
from m2distill_training.engine.train import train
from m2distill_training.evaluation.episode_runner import _Cached, run_episodes
from m2distill_training.evaluation.evaluate import evaluate_run, write_evaluation
from m2distill_training.evaluation.metrics import sum_interval
from m2distill_training.evaluation.rollout_jobs import ProgressCallbacks
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec, make_specs
from m2distill_training.evaluation.run_specs import serving_stages
from m2distill_training.presets import debug
from m2distill_training.runs.records import read_lines, write_lines
from m2distill_training.runs.run_folder import RunFolder

SUITE = "libero_object"


@pytest.fixture
def run(libero_file, tmp_path) -> RunFolder:
    files = [libero_file(str(task), instruction=find_task(SUITE, task).instruction, seed=task) for task in (1, 0)]
    config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
    return train(config, files, tmp_path / "run")


def evaluate(run: RunFolder, assets: str | None = None) -> tuple[dict, list[tuple[int, int, int]]]:
    """The evaluation but for how it was come by, and (stage, task, state) of the episodes that were run for it."""
    ran = []

    def note(result: RolloutResult) -> None:
        ran.append((int(result.spec.checkpoint.parent.name), result.spec.task, result.spec.state))

    evaluation = evaluate_run(
        run.path, [SUITE], 2, max_steps=2, workers=0, assets=assets, callbacks=ProgressCallbacks(result=note)
    )
    assert evaluation.pop("ran")["episodes"] == len(ran)
    return evaluation, ran


def test_an_interrupted_evaluation_continues_with_the_episodes_that_are_missing(run):
    first, ran = evaluate(run)
    a, b = HELD_OUT[:2]
    assert sorted(ran) == sorted((stage, task, state) for stage, task in ((1, 1), (2, 1), (2, 0)) for state in (a, b))
    kept = run.path / "episodes.jsonl"
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    videos = sorted(path.name for path in (run.path / "videos").iterdir())
    assert videos == [f"failure_{SUITE}_task{task}_state{state}.mp4" for task in (0, 1) for state in (a, b)]
    kept.write_text("".join(lines[1:5]) + lines[5][:30])  # the first is gone, the last cut short
    filmed = next(json.loads(line) for line in lines[1:5] if json.loads(line)["video"])
    (run.path / filmed["video"]).unlink()
    again, ran = evaluate(run)
    ids = [load_checkpoint(run.checkpoint(stage)).id for stage in (1, 2)]
    gone = [json.loads(lines[0]), filmed, json.loads(lines[5])]
    assert sorted(ran) == sorted((1 + ids.index(x["checkpoint_id"]), x["task"], x["state"]) for x in gone)
    assert again == first
    assert len(read_lines(kept)) == 4 + len(ran)
    assert sorted(path.name for path in (run.path / "videos").iterdir()) == videos


def test_episodes_beyond_liberos_held_out_states_begin_at_placements_of_their_own(run):
    assert held_out(12) == (*HELD_OUT, 50, 51)
    *_, a, b = make_specs(run.checkpoint(1), [find_task(SUITE, 1)], 12, "mode", 0, 1, "builtin", None)
    ends = []
    for job in (a, b, a):
        run_episodes([job])
        ends.append(_Cached.envs[0].data.qpos.copy())
    assert np.array_equal(ends[2], ends[0]) and not np.allclose(ends[1], ends[0], atol=1e-3)


def test_starts_for_choices_share_none_with_the_reported_ones(run):
    assert held_out(3, "choice") == (1000, 1001, 1002)
    assert set(held_out(960)).isdisjoint(held_out(960, "choice")) and max(held_out(960)) == 999
    with pytest.raises(UserError, match="961 episodes per task requested, expected at most 960"):
        held_out(961)
    with pytest.raises(UserError, match="unknown starts 'chosen'"):
        held_out(1, "chosen")
    options = {"max_steps": 2, "workers": 0, "assets": "builtin"}
    chosen = evaluate_run(run.path, [SUITE], 2, starts="choice", **options)
    assert chosen["starts"] == "choice"
    task = chosen["stages"][1]["tasks"][0]
    assert [episode["state"] for episode in task["runs"]] == [1000, 1001]
    assert all((run.path / episode["video"]).is_file() for episode in task["runs"])
    assert evaluate_run(run.path, [SUITE], 2, **options)["starts"] == "report"


def test_episodes_that_equal_weights_serve_run_once(libero_file, tmp_path):
    files = [libero_file(str(task), instruction=find_task(SUITE, task).instruction, seed=task) for task in (1, 0, 2)]
    optim = dataclasses.replace(debug().optim, budget=1)
    run = train(dataclasses.replace(debug().with_strategy("decoders"), optim=optim), files, tmp_path / "run")
    first, ran = evaluate(run)
    # A decoder is the same in all later checkpoints; the first checkpoint has none and counts as itself
    states = HELD_OUT[:2]
    expected = [(stage, task, state) for stage, task in ((1, 1), (3, 1), (3, 0), (3, 2)) for state in states]
    assert sorted(ran) == sorted(expected)
    assert [len(stage["tasks"]) for stage in first["stages"]] == [1, 2, 3]
    assert len({stage["checkpoint_id"] for stage in first["stages"]}) == 3
    checkpoint = load_checkpoint(run.checkpoint(3))
    state = {name: x + 0.01 if name == "decoders.0.head.mean.bias" else x for name, x in checkpoint.state_dict.items()}
    save_checkpoint(run.checkpoint(3), dataclasses.replace(checkpoint, state_dict=state))
    _, ran = evaluate(run)  # task 0 once more with the new weights; its videos were those of the last stage
    assert {task for _, task, _ in ran} == {0}


def test_other_settings_or_weights_are_not_taken_for_finished(run):
    evaluate(run)
    checkpoint = load_checkpoint(run.checkpoint(1))
    state = {name: x + 0.01 if name == "text.bias" else x for name, x in checkpoint.state_dict.items()}
    save_checkpoint(run.checkpoint(1), dataclasses.replace(checkpoint, state_dict=state))
    _, ran = evaluate(run)
    assert sorted(ran) == [(1, 1, state) for state in HELD_OUT[:2]]


def test_episodes_of_other_assets_are_run_again_wherever_the_same_ones_lie(run, tmp_path):
    a, moved, b = (shutil.copytree(find_assets("builtin").path, tmp_path / name) for name in ("a", "moved", "b"))
    soup = b / "stable_hope_objects/alphabet_soup/alphabet_soup.xml"
    soup.write_text(soup.read_text().replace('density="100"', 'density="900"'))
    assert soup.read_bytes() != (a / soup.relative_to(b)).read_bytes()
    first, ran = evaluate(run, str(a))
    assert len(ran) == 6
    assert evaluate(run, str(moved)) == (first, [])
    second, ran = evaluate(run, str(b))
    assert len(ran) == 6
    assert {task["assets"] for stage in second["stages"] for task in stage["tasks"]} == {"libero"}  # what people read
    again, ran = evaluate(run, str(a))
    assert again == first
    assert [stage for stage, _, _ in ran] == [2] * 4  # those whose films the others took the place of


def test_assets_that_cannot_be_read_are_rejected_by_name(run, tmp_path):
    folder = shutil.copytree(find_assets("builtin").path, tmp_path / "assets")
    (folder / "textures" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(AssetError, match=f"{folder} cannot be read .*lost.png"):
        evaluate(run, str(folder))


def test_episodes_of_other_versions_and_of_unknown_ones_are_run_again(run):
    first, ran = evaluate(run)
    lines = read_lines(run.path / "episodes.jsonl")
    assert {name: x for name, x in lines[0]["versions"].items() if x} == {
        name: version(name) for name, x in first["versions"].items() if x
    }
    older = [{**line, "versions": {**line["versions"], "mujoco": "2.0.0"}} for line in lines]
    unknown = [{name: x for name, x in line.items() if name != "versions"} for line in lines]
    for earlier in (older, unknown):
        write_lines(run.path / "episodes.jsonl", earlier)
        assert evaluate(run) == (first, ran)
        assert evaluate(run) == (first, [])


def test_libero_s_variant_is_there_when_checkpoints_of_the_learning_are(run):
    """LIBERO's FWT needs the success while a task is learned."""
    assert "libero_metrics" not in evaluate(run)[0]
    for stage in (1, 2):
        for step in (0, 8, 16):
            path = run.checkpoint(stage)
            save_checkpoint(path.parent / "curve" / str(step), load_checkpoint(path))
    evaluation, ran = evaluate(run)
    assert ran == []  # the same weights under other names
    assert evaluation["curves"] == [[0.0] * 3, [0.0] * 3]
    assert evaluation["libero_metrics"] == {"variant": "LIBERO", "fwt": 0.0, "nbt": 0.0, "auc": 0.0}
    assert [path.name for path in run.curve(2)] == ["0", "8", "16"]


def test_fewer_episodes_of_earlier_tasks_are_the_first_of_all(run):
    options = {"max_steps": 2, "workers": 0, "assets": "builtin", "environments": 2}
    evaluation = evaluate_run(run.path, [SUITE], 3, episodes_earlier=2, **options)
    rows = [[(t["task"], [x["state"] for x in t["runs"]]) for t in s["tasks"]] for s in evaluation["stages"]]
    assert rows == [[(1, list(HELD_OUT[:3]))], [(1, list(HELD_OUT[:2])), (0, list(HELD_OUT[:3]))]]
    assert (evaluation["episodes_per_task"], evaluation["episodes_earlier"]) == (3, 2)
    assert evaluation["stages"][1]["tasks"][0]["episodes"] == 2
    with pytest.raises(UserError, match="episodes_earlier is 4, expected 1 to episodes, 3"):
        evaluate_run(run.path, [SUITE], 3, episodes_earlier=4, **options)


def test_a_checkpoint_that_serves_its_own_task_alone_continues_serving_it():
    tasks = [find_task(SUITE, k) for k in range(7)]
    a, b, c, d = tasks[3:]
    assert serving_stages([{a, b}, {a, b, c}, {a, b, c, d}]) == [
        {a: 0, b: 0},
        {a: 1, b: 1, c: 1},
        {a: 2, b: 2, c: 2, d: 2},
    ]
    assert serving_stages([{a}, {b}, {c}]) == [{a: 0}, {a: 0, b: 1}, {a: 0, b: 1, c: 2}]


def results(run: RunFolder, stage: int, wins: dict[int, int], episodes: int = 10) -> list[RolloutResult]:
    """Made-up episodes: the first `wins[task]` of each task succeed."""
    return [
        RolloutResult(
            RolloutSpec(run.checkpoint(stage), SUITE, task, state, "stochastic", 0, 600, None), n < won, 100, ""
        )
        for task, won in wins.items()
        for n, state in enumerate(HELD_OUT[:episodes])
    ]


def test_intervals_stand_beside_the_metrics_and_shrink_with_episodes(run):
    settings = {"episodes_per_task": 10, "sampling": "stochastic", "seed": 0, "max_steps": 600}
    evaluation = write_evaluation(run.path, [results(run, 1, {1: 8}), results(run, 2, {1: 4, 0: 10})], settings)
    assert evaluation["metrics"] == {
        "variant": "final success",
        "fwt": pytest.approx(0.9),
        "nbt": pytest.approx(0.4),
        "auc": pytest.approx(0.8),
    }
    for name, value in (("fwt", 0.9), ("nbt", 0.4), ("auc", 0.8)):
        low, high = evaluation["intervals_95"][name]
        assert low < value < high
    assert evaluation["intervals_95"]["fwt"] == pytest.approx(list(sum_interval([0.5, 0.5], [(8, 10), (10, 10)])))
    assert evaluation["intervals_95"]["nbt"] == pytest.approx(list(sum_interval([1, -1], [(8, 10), (4, 10)])))
    fewer = write_evaluation(run.path, [results(run, 1, {1: 4}, 5), results(run, 2, {1: 2, 0: 5}, 5)], settings)
    assert fewer["metrics"]["fwt"] == pytest.approx(0.9)
    assert fewer["intervals_95"]["nbt"][0] < evaluation["intervals_95"]["nbt"][0]


def test_a_task_served_by_the_same_checkpoint_cannot_be_forgotten(run):
    first = results(run, 1, {1: 8})
    evaluation = write_evaluation(run.path, [first, [*first, *results(run, 2, {0: 5})]], {"episodes_per_task": 10})
    assert evaluation["metrics"]["nbt"] == 0
    assert evaluation["intervals_95"]["nbt"] == [0, 0]
