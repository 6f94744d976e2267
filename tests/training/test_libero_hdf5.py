import h5py
import numpy as np
import pytest

from m2distill_policy.errors import DataError
from m2distill_training.data.libero.reader import open_libero


def read(path, pairing="before"):
    with open_libero(path, pairing) as file:
        return file.instruction, list(file.demos())


def test_before_pairs_each_action_with_the_observation_it_was_chosen_from(libero_file):
    path = libero_file(demos=1, steps=5)
    _, (demo,) = read(path)
    with h5py.File(path) as file:
        raw = file["data/demo_0"]
        np.testing.assert_array_equal(demo.action, raw["actions"][1:].astype(np.float32))
        np.testing.assert_array_equal(demo.joint, raw["obs/joint_states"][:-1].astype(np.float32))
        np.testing.assert_array_equal(demo.gripper, raw["obs/gripper_states"][:-1].astype(np.float32))
        np.testing.assert_array_equal(demo.images["wrist"], raw["obs/eye_in_hand_rgb"][:-1][:, ::-1])


def test_as_stored_keeps_the_indices_of_the_file(libero_file):
    path = libero_file(demos=1, steps=5)
    _, (demo,) = read(path, "as_stored")
    with h5py.File(path) as file:
        raw = file["data/demo_0"]
        np.testing.assert_array_equal(demo.action, raw["actions"][:].astype(np.float32))
        np.testing.assert_array_equal(demo.joint, raw["obs/joint_states"][:].astype(np.float32))
        np.testing.assert_array_equal(demo.images["agentview"], raw["obs/agentview_rgb"][:][:, ::-1])


def test_a_file_that_stores_observations_first_is_not_shifted(libero_file):
    path = libero_file(demos=1, steps=5)
    with h5py.File(path, "a") as file:
        file["data"].attrs["obs_after_action"] = False
    assert len(read(path)[1][0].action) == 5


def test_images_in_opencv_convention_are_upright_already(libero_file):
    path = libero_file(demos=1, steps=5)
    with h5py.File(path, "a") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
        stored = file["data/demo_0/obs/agentview_rgb"][:-1]
    np.testing.assert_array_equal(read(path)[1][0].images["agentview"], stored)


def test_demos_come_in_numerical_order(libero_file):
    _, demos = read(libero_file(demos=11, steps=2))
    assert [demo.name for demo in demos] == [f"demo_{i}" for i in range(11)]
    assert [len(demo.action) for demo in demos] == [1 + i for i in range(11)]  # one lost to the pairing


@pytest.mark.parametrize("stored", ['["pick", "up", "the", "milk"]', '"\\"pick up  the milk\\""'])
def test_instructions_in_libero_s_other_spellings(libero_file, stored):
    path = libero_file(demos=1)
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = f'{{"language_instruction": {stored}}}'
    assert read(path)[0] == "pick up the milk"


def spoil(key, change):
    def apply(path):
        with h5py.File(path, "a") as file:
            data = file["data"]
            old = data[key][()]
            del data[key]
            new = change(old)
            if new is not None:
                data[key] = new

    return apply


def with_value(value):
    def change(array):
        array[2, 1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (spoil("demo_1/obs/joint_states", lambda a: None), "demo_1/obs/joint_states is missing"),
        (
            spoil("demo_1/obs/joint_states", lambda a: a[:, :6]),
            r"demo_1/obs/joint_states has shape .*, expected \(10, 7\)",
        ),
        (spoil("demo_0/obs/gripper_states", lambda a: a[:-1]), r"demo_0/obs/gripper_states has shape \(8, 2\)"),
        (spoil("demo_2/obs/joint_states", with_value(np.nan)), "demo_2/obs/joint_states is not finite at step 2"),
        (spoil("demo_0/actions", with_value(1.5)), "demo_0/actions reaches 1.5, allowed -1 to 1"),
        (spoil("demo_0/actions", lambda a: a[:1]), "demo_0 has 1 steps, expected at least 2"),
        (spoil("demo_0/actions", lambda a: 0.5), r"demo_0/actions has shape \(\), expected \(T, 7\)"),
        (
            spoil("demo_0/actions", lambda a: a.astype(complex)),
            "demo_0/actions has type complex128, expected real numbers",
        ),
        (spoil("demo_1/obs/joint_states", lambda a: a * 1e300), "demo_1/obs/joint_states is not finite"),
        (spoil("demo_0/obs/agentview_rgb", lambda a: a / 255.0), "demo_0/obs/agentview_rgb is float64"),
        (spoil("demo_0/obs/eye_in_hand_rgb", lambda a: a[..., :1]), r"expected uint8 \(9, H, W, 3\)"),
    ],
)
def test_damage_is_named_by_file_demo_and_key(libero_file, damage, said):
    path = libero_file()
    damage(path)
    with pytest.raises(DataError, match=said) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stored", ['""', "null", "[1, 2]", '{"a": "b"}'])
def test_an_instruction_without_words_is_rejected(libero_file, stored):
    path = libero_file(demos=1)
    with h5py.File(path, "a") as file:
        file["data"].attrs["problem_info"] = f'{{"language_instruction": {stored}}}'
    with pytest.raises(DataError, match="language_instruction in problem_info of /data is .*, expected words"):
        read(path)


def test_datasets_in_place_of_groups_are_rejected(libero_file, tmp_path):
    path = libero_file()
    with h5py.File(path, "a") as file:
        del file["data/demo_1"]
        file["data/demo_1"] = 1
    with pytest.raises(DataError, match="demo_1/actions is missing"):
        read(path)
    with h5py.File(tmp_path / "flat.hdf5", "w") as file:
        file["data"] = 1
    with pytest.raises(DataError, match="group /data is missing"):
        read(tmp_path / "flat.hdf5")


def test_rotten_bytes_inside_a_file_are_noticed(libero_file):
    path = libero_file(demos=1)
    with h5py.File(path, "a") as file:
        frames = file["data/demo_0/obs/agentview_rgb"][:]
        del file["data/demo_0/obs/agentview_rgb"]
        stored = file["data/demo_0/obs"].create_dataset(
            "agentview_rgb", data=frames, compression="gzip", fletcher32=True
        )
        place = stored.id.get_chunk_info(0).byte_offset + 10
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="demo_0 is not readable"):
        read(path)


def test_a_file_whose_only_demo_is_empty_is_rejected_before_a_store_is_made(libero_file):
    path = libero_file(demos=1)
    spoil("demo_0/actions", lambda a: a[:0])(path)
    with open_libero(path, "before") as file, pytest.raises(DataError, match="demo_0 has 0 steps"):
        file.lengths()


def test_files_that_are_none(tmp_path, libero_file):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "absent.hdf5")
    (tmp_path / "text.hdf5").write_text("hello")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        read(tmp_path / "text.hdf5")
    empty = libero_file("empty", demos=0)
    with pytest.raises(DataError, match="expected at least one"):
        read(empty)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(DataError, match="group /data is missing"):
        read(tmp_path / "other.hdf5")


def test_a_file_without_an_instruction_is_rejected(libero_file):
    path = libero_file()
    with h5py.File(path, "a") as file:
        del file["data"].attrs["problem_info"]
    with pytest.raises(DataError, match="language_instruction"):
        read(path)
