"""A task is a suite and a name, because instructions of LIBERO repeat; files that others have regenerated."""

import dataclasses

import h5py
import numpy as np
import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import DataError, UserError
from m2distill_sim.suites import suites
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.engine.train import train
from m2distill_training.evaluation.drift import measure_drift
from m2distill_training.evaluation.run_specs import find_tasks, run_specs, simulated_task
from m2distill_training.experiments.suite_files import in_suite_order
from m2distill_training.presets import debug
from m2distill_training.promotion import gate
from m2distill_training.promotion.gate import Thresholds, check_forgetting
from m2distill_training.runs.records import RunError

SHORT = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
BOWL = [t for t in suites()["libero_90"] if t.instruction == "put the black bowl on the plate"]


def mark(path, bddl):
    with h5py.File(path, "r+") as file:
        file["data"].attrs["bddl_file_name"] = bddl
    return path


@pytest.fixture
def scenes(libero_file):
    """Two tasks of LIBERO-90 with one instruction, in different scenes."""
    return [
        mark(libero_file(t.name, instruction=t.instruction, seed=t.index), f"x/libero_90/{t.name}.bddl")
        for t in BOWL[:2]
    ]


@pytest.mark.parametrize(
    ("bddl", "task"),
    [
        ("libero_90/KITCHEN_SCENE1_open.bddl", "libero_90/KITCHEN_SCENE1_open"),
        ("/home/x/LIBERO/bddl_files/LIBERO_90/KITCHEN_SCENE1_open.bddl", "libero_90/KITCHEN_SCENE1_open"),
        ("other/a.bddl", ""),
        ("libero_90/a b.bddl", ""),
        ("", ""),
        (3, ""),
    ],
)
def test_a_file_names_its_task(libero_file, bddl, task):
    with open_libero(mark(libero_file(), bddl), "before") as file:
        assert file.task == task


def test_tasks_of_one_instruction_are_learned_one_after_the_other_and_evaluated_in_their_scenes(
    scenes, tmp_path, monkeypatch
):
    assert len(BOWL) > 1
    run = train(SHORT, scenes, tmp_path / "run")
    assert [d["task"] for d in run.data()] == [t.full_name for t in BOWL[:2]]
    stages, _ = run_specs(run.path, ["libero_object"], 1, "mode", 0, 10, None, "report")
    assert [[(spec.suite, spec.task) for spec in stage] for stage in stages] == [
        [("libero_90", BOWL[0].index)],
        [("libero_90", BOWL[0].index), ("libero_90", BOWL[1].index)],
    ]
    known = load_checkpoint(run.checkpoint(2))
    assert find_tasks(["libero_object"], known.instructions, known.task_names) == BOWL[:2]
    assert [e["stage"] for e in measure_drift(run.path)["entries"]] == [2]
    asked = []

    def evaluated(checkpoint, tasks, episodes, out, **_):
        asked.append([task.index for task in tasks])
        return {"tasks": [{"runs": [{"success": True}] * episodes} for _ in tasks]}

    monkeypatch.setattr(gate, "evaluate_checkpoint", evaluated)
    checks = check_forgetting(run, 2, 1, Thresholds(), ["libero_90"], episodes=20)
    assert asked == [[BOWL[0].index], [BOWL[0].index, BOWL[1].index]]
    assert [(check.new, check.passed) for check in checks] == [(False, True), (True, True)]


def test_one_instruction_twice_is_rejected_without_names_of_the_tasks(libero_file, tmp_path, scenes):
    with pytest.raises(RunError, match="like another dataset before it"):
        train(SHORT, [scenes[0], libero_file(instruction=BOWL[0].instruction)], tmp_path / "run")
    with pytest.raises(RunError, match="like another dataset before it"):
        train(SHORT, [scenes[0], scenes[0]], tmp_path / "run")


def test_an_instruction_of_several_tasks_is_rejected_with_their_names():
    text = "open the top drawer of the cabinet"
    with pytest.raises(UserError, match=rf"'{text}' is the instruction of \d+ tasks: libero_90 \d+ \(KITCHEN_SCENE"):
        simulated_task(["libero_90"], text)
    with pytest.raises(
        UserError, match=r"is the instruction of \d tasks: libero_goal 7 \(turn_on_the_stove\), libero_90"
    ):
        find_tasks(["libero_goal", "libero_90"], ["turn on the stove"])


def test_a_file_of_another_scene_does_not_stand_for_a_task(scenes):
    first, second = BOWL[:2]
    renamed = scenes[1].rename(scenes[1].with_name("mine.hdf5"))
    assert in_suite_order([renamed], "libero_90", [second.index])[0] == [renamed]
    with pytest.raises(DataError, match=f"needs one file for task {first.index}"):
        in_suite_order([renamed], "libero_90", [first.index])


# ---- which observation belongs to an action


def regenerate(path, after, attribute=None, still=False):
    """States as a simulator has them, and joints of the same row, or of the next one as in LIBERO's files."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            T = len(demo["actions"])
            arm = np.cumsum(rng.normal(0, 0 if still else 0.02, (T + 1, 7)), 0)
            demo["states"] = np.hstack([np.arange(T)[:, None] * 0.05, arm[:T], rng.normal(size=(T, 20))])
            demo["obs/joint_states"][:] = (arm[1:] if after else arm[:T]) + rng.normal(0, 1e-4, (T, 7))
        if attribute is not None:
            file["data"].attrs["obs_after_action"] = attribute
    return path


@pytest.mark.parametrize(
    ("after", "attribute", "still", "lost"),
    [(False, None, False, 0), (True, None, False, 1), (True, True, False, 1), (False, False, False, 0),
     (False, None, True, 1), (False, False, True, 0)],
)  # fmt: skip
def test_the_convention_of_a_file_is_read_from_its_states(libero_file, after, attribute, still, lost):
    path = regenerate(libero_file(), after, attribute, still)
    with open_libero(path, "before") as file, h5py.File(path, "r", locking=False) as raw:
        demo = next(file.demos())
        actions = raw["data/demo_0/actions"][:]
        assert len(demo.action) == len(actions) - lost
        np.testing.assert_allclose(demo.action, actions[lost:], rtol=1e-6)


def test_an_attribute_that_contradicts_the_states_is_named(libero_file):
    path = regenerate(libero_file(), False, attribute=True)
    reason = r"obs_after_action of /data is True, but .* before the actions; correct"
    with pytest.raises(DataError, match=reason), open_libero(path, "before"):
        pass


def test_a_regenerated_file_without_attributes_has_the_instruction_of_its_name(libero_file, tmp_path):
    path = regenerate(libero_file("KITCHEN_SCENE3_turn_on_the_stove"), False)
    with h5py.File(path, "r+") as file:
        for name in list(file["data"].attrs):
            del file["data"].attrs[name]
    with open_libero(path, "before") as file:
        assert (file.instruction, file.task) == ("turn on the stove", "")
        assert [len(demo.action) for demo in file.demos()] == [9, 10, 11]
    (tmp_path / "libero_90").mkdir()
    with open_libero(path.rename(tmp_path / "libero_90" / path.name), "before") as file:
        assert file.task == "libero_90/KITCHEN_SCENE3_turn_on_the_stove"
