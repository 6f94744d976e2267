"""One episode of every kind of set as a motion for the replay."""

import h5py
import numpy as np
import pytest
from bag_writer import INSTRUCTION, write_bag

from m2distill_policy.errors import DataError, UserError
from m2distill_policy.spec import libero_spec
from m2distill_training.cli import main
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.motions import read_motion
from m2distill_training.data.rosbag.bag_import import import_bags

SPEC = libero_spec(64, text_encoder="none", text_width=8)
LABELS = {"instruction": INSTRUCTION, "success": "true", "spec": SPEC.to_json(), "arm": "libero_sim"}


def test_a_motion_has_what_was_executed_and_the_sizes_of_the_images(libero_file):
    path = libero_file("a", demos=2)
    plain = read_motion(path, "demo_1", 0.3)
    with open_libero(path, "as_stored") as file:
        (_, demo) = file.demos()
    np.testing.assert_array_equal(plain.motion.action, demo.action)
    np.testing.assert_array_equal(plain.motion.joint, demo.joint)
    assert plain.motion.text == "replay demo_1: pick up the milk" and plain.motion.tolerance_rad == 0.3
    assert {(camera.height, camera.width) for camera in plain.motion.spec.cameras} == {(16, 16)}
    assert plain.start is None
    with h5py.File(path, "a") as file:
        file["data/demo_1/disturbances"] = np.full(demo.action.shape, 0.5)
        file["data/demo_1/states"] = np.arange(6.0).reshape(2, 3)
    pushed = read_motion(path, "demo_1", 0.3)
    np.testing.assert_allclose(pushed.motion.action, np.clip(demo.action + 0.5, -1, 1), atol=1e-6)
    assert pushed.start.tolist() == [0, 1, 2]


def test_a_bag_and_a_lerobot_dataset_have_the_motion_of_the_imported_file(tmp_path):
    bag = write_bag(tmp_path / "episodes" / "one", labels=LABELS)
    import_bags([bag], tmp_path / "out")
    (file,) = (tmp_path / "out").glob("*.hdf5")
    export_lerobot((file,), tmp_path / "lerobot")
    expected = read_motion(file, "", 0.2).motion
    for path, name in ((bag, ""), (tmp_path / "episodes", "one"), (tmp_path / "lerobot", "episode 0")):
        found = read_motion(path, name, 0.2)
        np.testing.assert_allclose(found.motion.action, expected.action, atol=1e-6)
        np.testing.assert_allclose(found.motion.joint, expected.joint, atol=1e-6)
        assert found.instruction == INSTRUCTION and found.motion.spec.joint_names == expected.spec.joint_names


def test_what_cannot_be_replayed_is_rejected_in_one_line(tmp_path, libero_file, capsys):
    path = libero_file("a", demos=2)
    with pytest.raises(DataError, match="unknown episode 'demo_7'; did you mean 'demo_"):
        read_motion(path, "demo_7", 0.2)
    bad = write_bag(tmp_path / "two", labels={**LABELS, "instruction": "wave"})  # and another one on the topic
    with pytest.raises(DataError, match="two cannot be replayed: .*2 instructions"):
        read_motion(bad, "", 0.2)
    with pytest.raises(UserError, match="tolerance is 0 rad"):
        read_motion(path, "", 0.0)
    assert main.run(["replay", str(path), "--episode", "demo_7"]) == 2
    assert capsys.readouterr().err.startswith("m2distill: error: unknown episode 'demo_7'")
    assert main.run(["replay", str(path)]) == 2  # of no task of a suite
    assert "no task of libero_object" in capsys.readouterr().err
