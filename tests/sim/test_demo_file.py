"""The written format is compared with LIBERO's key by key, and read by robomimic's own dataset."""

import json

import h5py
import numpy as np
import pytest

from m2distill_sim.libero_writer import SimulatedEpisode, store_demo, write_task
from m2distill_sim.suites import find_task

# LIBERO's datasets (scripts/create_dataset.py): what a demo holds beside the images, and how wide
WIDTHS = {
    "actions": 7,
    "states": 45,
    "robot_states": 9,
    "obs/joint_states": 7,
    "obs/gripper_states": 2,
    "obs/ee_states": 6,
    "obs/ee_pos": 3,
    "obs/ee_ori": 3,
}
IMAGES = ("obs/agentview_rgb", "obs/eye_in_hand_rgb")
FLAGS = ("rewards", "dones")


def episode(steps: int) -> SimulatedEpisode:
    rng = np.random.default_rng(steps)
    numbers = {name: rng.normal(size=(steps, width)) for name, width in WIDTHS.items()}
    images = {name: rng.integers(0, 256, (steps, 8, 8, 3), np.uint8) for name in IMAGES}
    return SimulatedEpisode(
        {**numbers, **images, **dict.fromkeys(FLAGS, np.eye(steps, dtype=np.uint8)[-1])}, "<mujoco/>"
    )


@pytest.fixture
def written(tmp_path):
    """written(suite, task) -> path of a file with demos of 4 and 6 steps."""

    def write(suite, task):
        demos = [tmp_path / f"{steps}.hdf5" for steps in (4, 6)]
        for path, steps in zip(demos, (4, 6), strict=True):
            store_demo(path, episode(steps))
        out = tmp_path / "out"
        out.mkdir()
        write_task(out / "a_demo.hdf5", find_task(suite, task), demos, "made-up", True, {"origin": "here"})
        assert [path.name for path in out.iterdir()] == ["a_demo.hdf5"]
        return out / "a_demo.hdf5"

    return write


@pytest.mark.parametrize(
    ("suite", "task", "env_name", "bddl"),
    [
        (
            "libero_object",
            7,
            "Libero_Floor_Manipulation",
            "libero_object/pick_up_the_milk_and_place_it_in_the_basket.bddl",
        ),
        ("libero_goal", 0, "Libero_Tabletop_Manipulation", "libero_goal/open_the_middle_drawer_of_the_cabinet.bddl"),
        (
            "libero_10",
            8,
            "Libero_Kitchen_Tabletop_Manipulation",
            "libero_10/KITCHEN_SCENE8_put_both_moka_pots_on_the_stove.bddl",
        ),
        ("robosuite", 0, "Lift", ""),
    ],
)
def test_the_attributes_are_liberos(written, suite, task, env_name, bddl):
    with h5py.File(written(suite, task)) as file:
        attributes = file["data"].attrs
        assert (attributes["env_name"], attributes["bddl_file_name"]) == (env_name, bddl)
        assert json.loads(attributes["problem_info"]) == {
            "problem_name": env_name.lower(),
            "domain_name": "robosuite",
            "language_instruction": find_task(suite, task).instruction,
        }
        made = json.loads(attributes["env_args"])
        assert (made["type"], made["env_name"], made["bddl_file"]) == (1, env_name, bddl)
        assert (attributes["num_demos"], attributes["total"]) == (2, 10)
        assert (attributes["macros_image_convention"], attributes["assets"], attributes["origin"]) == (
            "opengl",
            "made-up",
            "here",
        )
        for steps, demo in zip((4, 6), file["data"].values(), strict=True):
            assert demo.attrs["num_samples"] == steps and demo.attrs["model_file"] == "<mujoco/>"
            np.testing.assert_array_equal(demo.attrs["init_state"], demo["states"][0])


def test_robomimics_own_dataset_reads_every_key(written):
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset

    path = written("libero_object", 0)
    low_dim = [name.removeprefix("obs/") for name in WIDTHS if name.startswith("obs/")]
    rgb = [name.removeprefix("obs/") for name in IMAGES]
    others = [name for name in WIDTHS if "/" not in name] + list(FLAGS)
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"rgb": rgb, "low_dim": low_dim}})
    dataset = SequenceDataset(
        str(path),
        obs_keys=(*rgb, *low_dim),
        dataset_keys=tuple(others),
        seq_length=3,
        load_next_obs=False,
        hdf5_cache_mode=None,
        hdf5_use_swmr=False,
    )
    assert len(dataset) == 10
    window, stored = dataset[4 + 1], episode(6).datasets  # of the second demo, from its second step
    for name in others:
        np.testing.assert_allclose(window[name], stored[name][1:4], rtol=1e-6)
    for name in low_dim:
        np.testing.assert_allclose(window["obs"][name], stored[f"obs/{name}"][1:4], rtol=1e-6)
    for name in rgb:  # robomimic's own form: channels first, 0 to 1
        expected = stored[f"obs/{name}"][1:4].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(window["obs"][name], expected, atol=1e-6)
    dataset.close_and_delete_hdf5_handle()
