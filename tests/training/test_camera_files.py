"""Cameras of a file outside the packages."""

import dataclasses
import json
import os

os.environ.setdefault("MUJOCO_GL", "egl")

import h5py
import numpy as np
import pytest
from bag_writer import INSTRUCTION, write_bag

from m2distill_policy.cameras import CAMERAS, Camera, parse_cameras, read_cameras
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import DataError
from m2distill_policy.spec import libero_spec
from m2distill_training.cli import main
from m2distill_training.data.store import open_store
from m2distill_training.runs.records import read_json
from m2distill_training.runs.run_folder import RunFolder

FRONT = {"name": "front", "hdf5_key": "ahead", "sim_camera": "frontview", "size": 24}
THREE = {"cameras": [{"name": "agentview"}, {"name": "wrist"}, FRONT]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which the tests write their files."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def files(libero_file):
    return [libero_file("a", instruction="pick up the milk"), libero_file("b", instruction="open the drawer", seed=1)]


def argv(files, *options: str, out: str = "run") -> list[str]:
    return ["train", "--preset", "debug", *options, "--data", *map(str, files), "--out", out]


@pytest.fixture
def cameras(folder):
    path = folder / "cameras.json"
    path.write_text(json.dumps(THREE))
    return path


def test_a_camera_file_extends_the_table(cameras, folder):
    assert read_cameras(cameras) == (*CAMERAS, Camera("front", "ahead", "frontview", "observation.images.front", 24))
    (folder / "cameras.yaml").write_text("cameras:\n  - name: agentview\n  - {name: top, size: 64}\n")
    assert read_cameras(folder / "cameras.yaml") == (CAMERAS[0], Camera("top", "top_rgb", "top", size=64))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cameras: [", "neither YAML nor JSON"),
        ("views: []", "holds no list `cameras`"),
        ("cameras: []", "expected a list of 1 to 16 cameras"),
        ("cameras: [front]", "camera 1 is 'front', expected keys"),
        ("cameras: [{size: 3}]", "camera 1 has no name"),
        ("cameras: [{name: a, hdf_key: b}]", "camera 1: unknown key 'hdf_key'; did you mean 'hdf5_key'"),
        ("cameras: [{name: a, size: big}]", "size is 'big', expected int"),
        ("cameras: [{name: a, size: 3}]", "size is 3 px, allowed 8 to 4096"),
        ("cameras: [{name: a b}]", "'a b' is not an identifier"),
        ("cameras: [{name: a}, {name: a}]", "two cameras have the name 'a'"),
        ("cameras: [{name: a}, {name: b, hdf5_key: a_rgb}]", "two cameras have the hdf5_key 'a_rgb'"),
        ("cameras: [{name: a, hdf5_key: x/y}]", "expected a name without a slash"),
    ],
)
def test_a_wrong_camera_file_is_named(content, message, files, folder, capsys):
    (folder / "views.yaml").write_text(content)
    assert main.run(argv(files, "--cameras", "views.yaml")) == 2
    printed = capsys.readouterr().err
    assert "camera file views.yaml" in printed and message in printed and printed.count("\n") == 1


def test_a_missing_camera_file_is_named(files, folder, capsys):
    assert main.run(argv(files, "--cameras", "absent.yaml")) == 2
    assert "camera file absent.yaml cannot be read (No such file or directory)" in capsys.readouterr().err


def with_front_view(path) -> None:
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            demo["obs/ahead"] = np.full((len(demo["actions"]), 24, 24, 3), 7, np.uint8)


@pytest.mark.slow
def test_a_third_view_is_trained_and_served(cameras, files, folder):
    for path in files:
        with_front_view(path)
    assert main.run(argv(files, "--cameras", str(cameras))) == 0
    checkpoint = load_checkpoint(RunFolder(folder / "run").checkpoint(2))
    assert [(c.name, c.height) for c in checkpoint.spec.cameras] == [("agentview", 16), ("wrist", 16), ("front", 24)]
    assert parse_cameras(checkpoint.metrics["cameras"]) == read_cameras(cameras)
    session = PolicySession(checkpoint.spec, InferencePolicy(checkpoint), checkpoint.instructions)
    session.set_instruction("pick up the milk")
    for camera in ("agentview", "wrist"):
        session.observe_image(camera, np.zeros((32, 32, 3), np.uint8), 1)
    joints = checkpoint.spec.joint_names + checkpoint.spec.gripper_joint_names
    session.observe_joints(joints, [0.0, 0.0, 0.0, -1.5, 0.0, 1.5, 0.0, 0.02, 0.02], 1)
    assert "front" in session.tick(2).reason
    session.observe_image("front", np.zeros((48, 48, 3), np.uint8), 1)
    assert not hasattr(session.tick(2), "reason")


def test_a_file_without_the_third_view_is_named(cameras, files, folder, capsys):
    assert main.run(argv(files, "--cameras", str(cameras))) == 2
    assert "demo_0/obs/ahead is missing" in capsys.readouterr().err


def test_stores_of_other_keys_are_kept_apart(libero_file):
    file, spec = libero_file(), libero_spec(size_px=16, history=4)
    swapped = [dataclasses.replace(CAMERAS[0], hdf5_key="eye_in_hand_rgb"), CAMERAS[1]]
    one, other = open_store(file, spec, "before"), open_store(file, spec, "before", cameras=swapped)
    assert one.key != other.key
    np.testing.assert_array_equal(other.images["agentview"], one.images["wrist"])
    with pytest.raises(DataError, match="obs/top_rgb is missing"):
        open_store(file, libero_spec(16, 4, cameras=[Camera("top")]), "before")


@pytest.mark.sim
def test_three_views_from_collection_to_evaluation(cameras, folder):
    command = [
        "collect",
        "--tasks",
        "0",
        "--demos",
        "1",
        "--image-size-px",
        "16",
        "--workers",
        "1",
        "--assets",
        "builtin",
    ]
    assert main.run([*command, "--out", "demos", "--cameras", str(cameras)]) == 0
    (file,) = (folder / "demos").glob("*.hdf5")
    with h5py.File(file) as demos:
        obs = demos["data/demo_0/obs"]
        assert obs["ahead"].shape[1:] == (24, 24, 3) and obs["agentview_rgb"].shape[1:] == (16, 16, 3)
        assert np.ptp(obs["ahead"][0]) > 50
    assert main.run([*command, "--out", "demos"]) == 2  # the same file with two views
    assert main.run(argv([file], "--cameras", str(cameras), "--budget", "1")) == 0
    command = ["evaluate", "run", "--episodes", "1", "--max-steps", "2", "--workers", "1", "--assets", "builtin"]
    assert main.run(command) == 0
    assert read_json(folder / "run" / "evaluation.json")["stages"][0]["tasks"][0]["runs"][0]["held"] == ""


def test_three_views_travel_to_lerobot_and_back(cameras, files, folder, capsys):
    with_front_view(files[0])
    assert main.run(["export", "lerobot", str(files[0]), "--out", "set", "--lossless", "--cameras", str(cameras)]) == 0
    features = json.loads((folder / "set/meta/info.json").read_text())["features"]
    assert features["observation.images.front"]["shape"] == [24, 24, 3]
    assert main.run(["import", "lerobot", "set", "--out", "back", "--cameras", str(cameras)]) == 0
    (back,) = (folder / "back").glob("*.hdf5")
    with h5py.File(back) as new, h5py.File(files[0]) as old:
        for demo in old["data"]:
            for key in ("ahead", "agentview_rgb", "eye_in_hand_rgb"):
                np.testing.assert_array_equal(new["data"][demo]["obs"][key], old["data"][demo]["obs"][key][:-1])
    assert main.run(["export", "lerobot", str(files[1]), "--out", "other", "--cameras", str(cameras)]) == 2
    assert "obs/ahead is missing" in capsys.readouterr().err


def test_other_names_of_images_in_a_lerobot_dataset(files, folder, capsys):
    (folder / "names.yaml").write_text(
        "cameras: [{name: agentview, lerobot_key: image}, {name: wrist, lerobot_key: wrist_image}]"
    )
    assert main.run(["export", "lerobot", str(files[0]), "--out", "set", "--cameras", "names.yaml"]) == 0
    assert main.run(["import", "lerobot", "set", "--out", "back"]) == 2
    assert "name the features in a file for --cameras, as lerobot_key" in capsys.readouterr().err
    assert main.run(["import", "lerobot", "set", "--out", "back", "--cameras", "names.yaml"]) == 0


def test_an_imported_bag_has_the_keys_of_the_camera_file(folder, capsys):
    spec = libero_spec(32, text_encoder="none", text_width=8, cameras=[CAMERAS[0], Camera("wrist", size=64)])
    labels = {"instruction": INSTRUCTION, "success": "true", "spec": spec.to_json(), "arm": "libero_sim"}
    bag = str(write_bag(folder / "bag", labels=labels))
    (folder / "keys.yaml").write_text("cameras: [{name: agentview}, {name: wrist, hdf5_key: hand}]")
    assert main.run(["import", "bag", bag, "--out", "out", "--cameras", "keys.yaml"]) == 0
    (file,) = (folder / "out").glob("*.hdf5")
    with h5py.File(file) as demos:
        obs = demos["data/demo_0/obs"]
        assert obs["hand"].shape[1:] == (64, 64, 3) and obs["agentview_rgb"].shape[1:] == (32, 32, 3)
        assert "eye_in_hand_rgb" not in obs
    (folder / "one.yaml").write_text("cameras: [{name: agentview}]")
    assert main.run(["import", "bag", bag, "--out", "more", "--cameras", "one.yaml"]) == 2
    assert "the spec has the cameras agentview, wrist, --cameras lists agentview" in capsys.readouterr().err
