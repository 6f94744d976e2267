"""robosuite's human demonstrations, from its wheel to a policy in closed loop."""

import contextlib
import dataclasses
import json
import os
import shutil

os.environ.setdefault("MUJOCO_GL", "egl")

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from m2distill_policy.errors import DataError
from m2distill_sim import lift
from m2distill_sim.lift_env import LiftEnv
from m2distill_sim.suites import find_task
from m2distill_training.cli import main
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.engine.train import train
from m2distill_training.evaluation.evaluate import evaluate_run
from m2distill_training.experiments.moved_demos import STEADY_M, STEADY_RAD, HandPath, Pose, faster, moved
from m2distill_training.experiments.robosuite_demos import import_lift, read_recordings
from m2distill_training.presets import debug

pytestmark = pytest.mark.sim

SOURCE = lift.assets().path / "demonstrations/lift/demo.hdf5"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp("lift")
    assert main.run(["import", "robosuite-demos", str(out), "--image-size-px", "16"]) == 0
    assert [path.name for path in out.iterdir()] == ["lift_demo.hdf5"]
    return out / "lift_demo.hdf5"


@pytest.fixture(scope="module")
def env():
    with LiftEnv() as env:
        yield env


def test_the_file_is_liberos_format_and_states_where_it_is_from(imported):
    with h5py.File(imported) as file:
        data = file["data"]
        assert (data.attrs["num_demos"], data.attrs["env_name"]) == (3, "Lift")
        assert data.attrs["assets"] == lift.assets().label and "human" in data.attrs["source"]
        assert json.loads(data.attrs["source_demos"]) == ["demo_1", "demo_2", "demo_3"]
        assert data.attrs["total"] == sum(len(demo["actions"]) for demo in data.values())
        for demo in data.values():
            actions = demo["actions"][:]
            assert np.isfinite(actions).all() and 0.2 < np.abs(actions[:, :6]).max() < 0.8
            assert set(actions[:, 6]) == {-1.0, 1.0}
            assert (np.abs(actions[:, :3]).max(1) > 0.02).mean() > 0.8  # it moves nearly all the time
    with open_libero(imported, "before") as file:
        assert file.instruction == "lift the red cube"
        demos = list(file.demos())
    with h5py.File(imported) as file:  # seen before the action: nothing is shifted
        assert [len(demo.action) for demo in demos] == [len(demo["actions"]) for demo in file["data"].values()]


def test_a_path_moves_with_the_object_and_begins_at_the_hand():
    """A quarter of a turn and 10 degrees more look like 10 degrees; the turn is about the object."""
    turn = Rotation.from_euler("z", 10, degrees=True)
    before = Pose(np.array([0.1, 0.0, 0.8]), Rotation.from_euler("z", 30, degrees=True))
    now = Pose(np.array([0.0, 0.2, 0.8]), Rotation.from_euler("z", 130, degrees=True))
    way = np.linspace([0.2, 0.0, 1.0], [0.1, 0.0, 0.8], 11)
    path = HandPath(
        way, Rotation.from_euler("x", np.full((11, 1), 180.0), degrees=True), np.array([-1.0] * 8 + [1.0] * 2)
    )
    hand = Pose(np.array([0.15, 0.1, 1.1]), Rotation.from_euler("y", 180, degrees=True))
    found = moved(path, before, now, hand)
    np.testing.assert_allclose(found.positions[0], hand.position, atol=1e-12)
    assert (found.orientations[0] * hand.orientation.inv()).magnitude() < 1e-9
    expected = turn.apply(way - before.position) + now.position
    np.testing.assert_allclose(found.positions[6:], expected[6:], atol=1e-12)  # 0.7 of the way to the grasp is 5.6
    assert (found.orientations[6:] * (turn * path.orientations[6:]).inv()).magnitude().max() < 1e-9
    assert np.abs(np.diff(found.positions, axis=0)).max() < 0.05 and path.grasp == 8


def test_the_way_to_the_grasp_is_taken_faster():
    """Of 30 steps to the grasp, 25 take 10; the grasp and what follows keep their time."""
    way = np.linspace([0.0, 0.0, 1.3], [0.0, 0.3, 1.0], 36)
    turns = Rotation.from_euler("z", np.linspace(0, 70, 36)[:, None], degrees=True)
    path = HandPath(way, turns, np.array([-1.0] * 30 + [1.0] * 5))
    found = faster(path, 2.5)
    assert (len(found.gripper), found.grasp) == (20, 15)
    np.testing.assert_allclose(found.positions[10:], way[25:], atol=1e-12)
    np.testing.assert_allclose(found.positions[:11], np.linspace(way[0], way[25], 11), atol=1e-12)
    assert (found.orientations[5] * Rotation.from_euler("z", -25, degrees=True)).magnitude() < 1e-9
    np.testing.assert_array_equal(found.gripper, [-1.0] * 15 + [1.0] * 5)


def test_demonstrations_are_generated_at_other_placements(imported, env, tmp_path):
    files = []
    for name, number, seed in (("one", "2", "0"), ("again", "1", "0"), ("other", "1", "1")):
        arguments = [str(tmp_path / name), "--image-size-px", "16", "--generate", number, "--seed", seed]
        assert main.run(["import", "robosuite-demos", *arguments]) == 0
        files.append(tmp_path / name / "lift_demo.hdf5")
    with contextlib.ExitStack() as stack:
        human, one, again, other = (stack.enter_context(h5py.File(path))["data"] for path in (imported, *files))
        names = json.loads(one.attrs["source_demos"])
        assert names[:3] == ["demo_1", "demo_2", "demo_3"]
        assert len(names) == 5 and all(", moved, attempt " in name for name in names[3:])
        for demo in human:
            np.testing.assert_array_equal(one[demo]["actions"], human[demo]["actions"])
        env.set_cube((lift.CUBE_HALF_M,) * 3)
        for demo in ("demo_3", "demo_4"):
            found = one[demo]
            assert {*human["demo_0"]} | {"disturbances"} == {*found}
            assert np.abs(found["actions"]).max() <= 1 and np.abs(found["disturbances"]).max() > 0.1
            env.reset(found["states"][0], settle_steps=0)
            for action, added in zip(found["actions"], found["disturbances"], strict=True):
                env.step(action + added, render=False)
            assert env.success()
        np.testing.assert_array_equal(one["demo_3/actions"], again["demo_3/actions"])
        cubes = [demo["states"][0][10:12] for demo in (one["demo_3"], one["demo_4"], other["demo_3"])]
        assert len({tuple(cube) for cube in cubes}) == 3


def test_motions_that_do_not_lift_the_cube_generate_nothing(tmp_path):
    copy = shutil.copy(SOURCE, tmp_path / "demo.hdf5")
    with h5py.File(copy, "a") as file:
        for demo in file["data"].values():
            demo["actions"][:, 6] = -1.0  # the fingers never close
    with pytest.raises(DataError, match="0 of 8 attempts lifted the cube along moved motions, expected 1"):
        import_lift(tmp_path / "out", copy, 16, generate=1)
    assert not list((tmp_path / "out").glob("*.hdf5"))


def test_observations_are_those_of_the_recorded_states(imported, env):
    with h5py.File(imported) as file, h5py.File(SOURCE) as source:
        demo, recorded = file["data/demo_1"], source["data/demo_2/states"][:]
        for j in (0, 60, len(demo["states"]) - 1):
            state = demo["states"][j]
            assert (recorded == state).all(1).any()
            env.show(state)
            np.testing.assert_allclose(demo["obs/joint_states"][j], state[1:8], atol=1e-12)
            np.testing.assert_allclose(demo["obs/ee_pos"][j], env.observe(render=False).ee_pos, atol=1e-9)


def test_the_derived_actions_lift_the_cube_when_they_are_played_back(imported, env):
    with h5py.File(imported) as file:
        demos = [(demo["states"][0], demo["actions"][:]) for demo in file["data"].values()]
    lifted = []
    for recording, (state, actions) in zip(read_recordings(SOURCE), demos, strict=True):
        env.set_cube(recording.cube_half_m)
        env.reset(state, settle_steps=0)
        lifted.append(any([env.step(action) and env.success() for action in actions]))
    assert lifted == [True, True, True]


def test_a_lasting_action_moves_the_hand_as_far_as_derivation_assumes(env):
    for axis, size, expected in ((0, 0.4, STEADY_M), (2, 0.4, STEADY_M), (3, 0.2, STEADY_RAD), (5, 0.2, STEADY_RAD)):
        env.reset(lift.initial_states()[0])
        action = size * np.eye(7)[axis]
        seen = [env.step(action) for _ in range(12)]
        if axis < 3:
            moved = (seen[-1].ee_pos - seen[5].ee_pos)[axis]
        else:
            moved = 2 * np.arccos(min(1, abs(seen[-1].ee_quat_xyzw @ seen[5].ee_quat_xyzw)))
        assert moved / 6 / size == pytest.approx(expected, rel=0.12)


def test_they_are_a_step_of_a_run_and_its_task_is_evaluated(imported, libero_file, tmp_path):
    config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=2))
    files = [libero_file(instruction=find_task("libero_object", 3).instruction), imported]
    run = train(config, files, tmp_path / "run", cache=tmp_path / "cache").path
    evaluation = evaluate_run(run, ["libero_object", "robosuite"], 1, max_steps=2, workers=0)
    assert [(t["suite"], t["task"], t["episodes"]) for t in evaluation["stages"][1]["tasks"]] == [
        ("libero_object", 3, 1),
        ("robosuite", 0, 1),
    ]
    assert evaluation["stages"][1]["tasks"][1]["assets"] == lift.assets().label
    assert evaluation["matrix"] == [[0.0, None], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda data: data.attrs.update(env_info=data.attrs["env_info"].replace("OSC_POSE", "JOINT_POSITION")),
            "was recorded with .*JOINT_POSITION.*expected .*OSC_POSE",
        ),
        (lambda data: data.attrs.__delitem__("env_info"), "not as robosuite 1.4 records"),
        (lambda data: data["demo_2/actions"].__setitem__((3, 1), np.nan), "demo_2 holds numbers that are not finite"),
        (lambda data: data["demo_1"].__delitem__("states"), "not as robosuite 1.4 records"),
        (
            lambda data: data["demo_3/states"].__setitem__((slice(100, None, 2), slice(1, 8)), 0.5),
            "demo_3: derived actions reach .*allowed -1 to 1",
        ),
        (
            lambda data: data["demo_1/states"].__setitem__(slice(None), data["demo_1/states"][0]),
            "demo_1: neither the hand nor the fingers move",
        ),
    ],
)
def test_a_recording_of_something_else_is_rejected(change, said, tmp_path):
    copy = shutil.copy(SOURCE, tmp_path / "demo.hdf5")
    with h5py.File(copy, "a") as file:
        change(file["data"])
    with pytest.raises(DataError, match=said):
        import_lift(tmp_path / "out", copy, 16)
