"""Runs with chosen successes, as `m2distill evaluate` leaves them."""

import dataclasses

import pytest

from m2distill_sim.suites import find_task, held_out
from m2distill_training.evaluation import evaluate
from m2distill_training.evaluation.evaluate import write_evaluation
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec
from m2distill_training.presets import debug
from m2distill_training.runs.records import write_json

SUITE = "libero_object"
SETTINGS = {"episodes_per_task": 10, "sampling": "mode", "seed": 0, "max_steps": 600}


class _NoCheckpoint:
    id = "x"


@pytest.fixture(name="make_run")
def make_run_fixture(tmp_path, monkeypatch):
    """make_run(folder, strategy, seed, wins): a run whose first wins[stage][task] starts succeed, written by evaluate.

    wins[stage] maps every task learned so far to its successes. No network is trained: its checkpoints are not read.
    """
    monkeypatch.setattr(evaluate, "load_checkpoint", lambda path: _NoCheckpoint)

    def make(folder, strategy, seed, wins, *, episodes=10, starts=None, config=None, key="k", earlier=None, **changed):
        path = tmp_path / folder
        path.mkdir(parents=True)
        config = dataclasses.replace((config or debug()).with_strategy(strategy), seed=seed)
        (path / "config.json").write_text(config.to_json())
        texts = [find_task(SUITE, task).instruction for task in wins[-1]]
        write_json(path / "data.json", [{"instruction": x, "key": key, "path": "a", "demos": 3} for x in texts])
        write_json(path / "environment.json", [])
        states = starts or held_out(episodes)
        results = [
            [
                RolloutResult(
                    RolloutSpec(path / str(stage), SUITE, task, state, "mode", 0, 600, "builtin"), n < won, 9, ""
                )
                for task, won in of_stage.items()
                for n, state in enumerate(states[: None if stage == 0 or task not in wins[stage - 1] else earlier])
            ]
            for stage, of_stage in enumerate(wins)
        ]
        changed |= {} if earlier is None else {"episodes_earlier": earlier}
        write_evaluation(path, results, SETTINGS | {"episodes_per_task": len(states)} | changed)
        return path

    return make


def three_stages(a, b, c):
    """Return wins of tasks 4, 2 and 7, learned in this order, from their successes after each stage."""
    return [{4: a[0]}, {4: a[1], 2: b[0]}, {4: a[2], 2: b[1], 7: c[0]}]


FORGETS = three_stages((9, 5, 1), (8, 4), (10,))
KEEPS = three_stages((9, 9, 8), (8, 6), (10,))
