import json
import shutil
import weakref

import h5py
import numpy as np
import pytest

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.errors import DataError, UserError
from m2distill_sim import collect as collecting
from m2distill_sim.assets import find_assets
from m2distill_sim.collect import CollectSettings, expert_digest, start_state
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.suites import DEMO_STATES, find_task, initial_states
from m2distill_training.experiments.collect import _progress, collect

NAME = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
TASK = find_task("libero_object", 0)
SIZE = 16  # px


@pytest.fixture(scope="module")
def demos(builtin, tmp_path_factory):
    """Two episodes of task 0, by one worker."""
    out = tmp_path_factory.mktemp("demos")
    paths = collect("libero_object", [0], 2, out, workers=1, size_px=SIZE, assets=builtin, progress=False)
    assert paths == [out / f"{NAME}_demo.hdf5"]
    assert [path.name for path in out.iterdir()] == [paths[0].name]  # no unfinished attempts remain
    return paths[0]


def test_the_file_has_liberos_names_shapes_and_types(demos):
    with h5py.File(demos) as file:
        data = file["data"]
        assert data.attrs["num_demos"] == 2
        assert data.attrs["experts"] == expert_digest() and len(expert_digest()) == 12
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == TASK.instruction
        assert data.attrs["total"] == sum(demo.attrs["num_samples"] for demo in data.values())
        for key in ("env_name", "bddl_file_name", "env_args", "macros_image_convention", "assets"):
            assert data.attrs[key]
        demo = data["demo_1"]
        steps = demo.attrs["num_samples"]
        shapes = {
            "actions": (7,),
            "disturbances": (7,),
            "states": (110,),
            "robot_states": (9,),
            "rewards": (),
            "dones": (),
            "obs/agentview_rgb": (SIZE, SIZE, 3),
            "obs/eye_in_hand_rgb": (SIZE, SIZE, 3),
            "obs/joint_states": (7,),
            "obs/gripper_states": (2,),
            "obs/ee_pos": (3,),
            "obs/ee_ori": (3,),
            "obs/ee_states": (6,),
        }
        for name, shape in shapes.items():
            assert demo[name].shape == (steps, *shape), name
        for name in ("rewards", "dones", "obs/agentview_rgb", "obs/eye_in_hand_rgb"):
            assert demo[name].dtype == np.uint8, name
        assert demo["dones"][:].tolist() == [0] * (steps - 1) + [1]
        np.testing.assert_array_equal(demo.attrs["init_state"], demo["states"][0])
        assert "alphabet_soup_1" in demo.attrs["model_file"]


def test_an_episode_replays_exactly_and_observations_follow_their_action(demos, builtin):
    """Executing intents plus disturbances from the attempt's start gives every state and every stored observation."""
    with LiberoEnv("libero_object", 0, builtin, {"agentview": (SIZE, SIZE), "wrist": (SIZE, SIZE)}) as env:
        with h5py.File(demos) as file:
            demo = {
                name: file["data/demo_0"][name][:]
                for name in ("actions", "disturbances", "states", "obs/joint_states", "obs/ee_pos", "obs/agentview_rgb")
            }
        env.reset(start_state(TASK, 0))
        for step in range(len(demo["actions"])):
            np.testing.assert_array_equal(env.state(), demo["states"][step])
            observation = env.step(demo["actions"][step] + demo["disturbances"][step], render=step % 20 == 0)
            np.testing.assert_array_equal(observation.joint_positions, demo["obs/joint_states"][step])
            np.testing.assert_array_equal(observation.ee_pos, demo["obs/ee_pos"][step])
            if observation.images:
                upside_down = observation.images["agentview"][::-1].astype(int)
                assert np.abs(upside_down - demo["obs/agentview_rgb"][step]).mean() < 1.0
        assert env.success()


def test_demonstrations_are_disturbed_but_their_actions_are_not(demos):
    with h5py.File(demos) as file:
        for demo in file["data"].values():
            assert np.abs(demo["disturbances"][:, :3]).mean() > 0.05
            smooth = np.abs(np.diff(demo["actions"][:, 3:6], axis=0)).max()
            assert smooth < 0.12  # intent: variation and correction only


def test_robomimics_own_dataset_reads_it(demos):
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_utils_with_obs_specs(
        {"obs": {"rgb": ["agentview_rgb", "eye_in_hand_rgb"], "low_dim": ["joint_states", "gripper_states"]}}
    )
    with h5py.File(demos) as file:  # closed before robomimic opens it
        total, actions = file["data"].attrs["total"], file["data/demo_0/actions"][3:13]
    dataset = SequenceDataset(
        str(demos),
        obs_keys=("agentview_rgb", "joint_states", "gripper_states"),
        dataset_keys=("actions", "dones"),
        frame_stack=1,
        seq_length=10,
        pad_frame_stack=True,
        pad_seq_length=True,
        hdf5_use_swmr=True,
        load_next_obs=False,
        hdf5_cache_mode=None,
    )
    assert len(dataset) == total
    window = dataset[3]
    np.testing.assert_array_equal(window["actions"], actions.astype(np.float32))  # its own precision
    assert window["obs"]["joint_states"].shape == (10, 7)
    dataset.close_and_delete_hdf5_handle()


def test_demonstrations_do_not_depend_on_the_number_of_workers(demos, builtin, tmp_path):
    (again,) = collect("libero_object", [NAME], 2, tmp_path, workers=2, size_px=SIZE, assets=builtin, progress=False)
    with h5py.File(demos) as first, h5py.File(again) as second:
        for index in range(2):
            for name in ("actions", "states", "disturbances", "obs/joint_states"):
                np.testing.assert_array_equal(first[f"data/demo_{index}"][name], second[f"data/demo_{index}"][name])


def test_another_seed_gives_another_demonstration(demos, soup_env):
    with h5py.File(demos) as file:
        recorded = file["data/demo_0/actions"][:20]
    steps = collecting._run_expert(soup_env, collecting._reset_attempt(soup_env, seed=1, attempt=0))
    assert np.abs(recorded - [intent for intent, _ in steps[:20]]).max() > 0.02


def test_an_interrupted_run_is_resumed(demos, builtin, tmp_path):
    """A finished attempt of a killed run is kept; a partly written one is not."""
    folder = collecting.unfinished_folder(tmp_path, TASK, CollectSettings(0, SIZE, builtin.label))
    folder.mkdir(parents=True)
    with h5py.File(demos) as source, h5py.File(folder / "0.hdf5", "w") as target:
        for name in source["data/demo_0"]:
            source.copy(f"data/demo_0/{name}", target)
        target.attrs.update(dict(source["data/demo_0"].attrs))
        target.attrs["mark"] = "kept"
    (folder / "1.tmp").write_bytes(b"half")
    (path,) = collect("libero_object", [0], 2, tmp_path, workers=1, size_px=SIZE, assets=builtin, progress=False)
    with h5py.File(path) as file, h5py.File(demos) as whole:
        assert file["data/demo_0"].attrs["mark"] == "kept"
        np.testing.assert_array_equal(file["data/demo_1/actions"], whole["data/demo_1/actions"])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_neither_a_finished_file_nor_one_of_other_settings_is_overwritten(demos, builtin, tmp_path):
    before = demos.stat()
    collect("libero_object", [0], 2, demos.parent, size_px=SIZE, assets=builtin, progress=False)
    assert demos.stat() == before
    with pytest.raises(DataError, match=r"other settings: seed 0 \(requested: 7\), episodes 2 \(requested: 3\)"):
        collect("libero_object", [0], 3, demos.parent, seed=7, size_px=SIZE, assets=builtin, progress=False)
    foreign = tmp_path / demos.name
    foreign.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match="was not written by collect"):
        collect("libero_object", [0], 2, tmp_path, size_px=SIZE, assets=builtin, progress=False)
    assert foreign.read_bytes() == b"not HDF5"


def test_changed_assets_are_other_settings(demos, builtin, tmp_path):
    def rejection() -> str:
        with pytest.raises(DataError, match="other settings") as rejected:
            collect("libero_object", [0], 2, tmp_path, size_px=SIZE, assets=find_assets(copy), progress=False)
        return str(rejected.value)

    copy = tmp_path / "assets"
    shutil.copytree(builtin.path, copy)
    shutil.copy(demos, tmp_path)
    before = rejection()
    next(copy.rglob("*.xml")).write_text("<mujoco/>")
    assert rejection() != before


def test_a_worker_closes_its_environment_before_it_loads_another_task(builtin):
    first = collecting._worker_env(TASK, builtin, SIZE, CAMERAS)
    assert collecting._worker_env(TASK, builtin, SIZE, CAMERAS) is first
    simulator = weakref.ref(first._sim)
    second = collecting._worker_env(find_task("libero_object", 1), builtin, SIZE, CAMERAS)
    assert simulator() is None and second.state().size
    collecting._worker_envs.clear()
    second.close()


def test_attempts_start_from_demonstration_states_and_then_from_drawn_placements():
    np.testing.assert_array_equal(start_state(TASK, 39), initial_states("libero_object", 0)[39])
    assert start_state(TASK, len(DEMO_STATES)) is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"tasks": [12]}, "no task 12"),
        ({"episodes": 0}, "expected at least 1"),
        ({"workers": 0}, "expected at least 1"),
        ({"size_px": 8}, "allowed 16 to 1024"),
        ({"tasks": []}, "expected at least one and no duplicates"),
        ({"tasks": [0, NAME]}, "expected at least one and no duplicates"),
        ({"suite": "libero_10"}, "no scripted expert for libero_10"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
    ],
)
def test_bad_requests_write_nothing(builtin, tmp_path, arguments, message):
    out = tmp_path / "out"
    request = {"suite": "libero_object", "tasks": [0], "episodes": 1, "out": out, "assets": builtin} | arguments
    with pytest.raises(UserError, match=message):
        collect(**request)
    assert not out.exists()


def test_progress_that_is_no_terminal_prints_every_line_once(capsys):
    task = find_task("libero_object", 0)
    with _progress(visible=True) as show:
        for successes, attempts in ((0, 0), (1, 1), (2, 2), (2, 2)):
            show(task, successes, attempts, 2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{task.instruction}: 2/2, 0 failed"
    assert len(set(lines)) == len(lines)
