"""Export to LeRobot's format. What is expected of the format is written down from datasets that LeRobot 0.4 wrote."""

import json

import h5py
import imageio.v2 as imageio
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_files import EPISODES, INSTRUCTIONS, ROWS, VIDEO, demos_of, two_tasks

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.videos import LOSSLESS, VideoFiles

STATISTICS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")


@pytest.fixture(scope="module")
def files(write_libero, tmp_path_factory):
    return two_tasks(write_libero, tmp_path_factory.mktemp("demos"))


@pytest.fixture(scope="module")
def exported(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("lerobot") / "dataset"
    export_lerobot(files, out, lossless=True)
    return out


def test_a_row_holds_what_was_seen_when_the_action_was_chosen(files, exported):
    rows = pq.read_table(exported / ROWS)
    with h5py.File(files[0]) as file:
        raw = file["data/demo_0"]  # LIBERO's convention: the observation of row j came after its action
        steps = len(raw["actions"]) - 1
        np.testing.assert_array_equal(rows["action"].to_pylist()[:steps], raw["actions"][1:].astype(np.float32))
        state = np.hstack([raw["obs/joint_states"][:-1], raw["obs/gripper_states"][:-1] * [1, -1]])
        np.testing.assert_array_equal(rows["observation.state"].to_pylist()[:steps], state.astype(np.float32))
        seen = np.stack(imageio.mimread(exported / VIDEO.format("wrist"), memtest=False))
        np.testing.assert_array_equal(seen[:steps], raw["obs/eye_in_hand_rgb"][:-1][:, ::-1])  # upright
    assert len(seen) == len(rows) == 8 + 9 + 10 + 5 + 6


def test_a_file_that_stores_observations_first_keeps_every_step(libero_file, tmp_path):
    path = libero_file(demos=1, steps=5)
    with h5py.File(path, "a") as file:
        file["data"].attrs["obs_after_action"] = False
    assert export_lerobot([path], tmp_path / "out", lossless=True)["total_frames"] == 5


def test_the_columns_are_lerobots(exported):
    schema = pq.read_schema(exported / ROWS)
    assert {field.name: str(field.type) for field in schema} == {
        "observation.state": "fixed_size_list<element: float>[9]",
        "action": "fixed_size_list<element: float>[7]",
        "timestamp": "float",
        "frame_index": "int64",
        "episode_index": "int64",
        "index": "int64",
        "task_index": "int64",
    }
    numbers = ("observation.state", "action", "timestamp", "frame_index", "episode_index", "index", "task_index")
    videos = ("observation.images.agentview", "observation.images.wrist")
    whole = ("frame_index", "episode_index", "index", "task_index")
    expected = {
        "episode_index": "int64",
        "tasks": "list<element: string>",
        "length": "int64",
        "data/chunk_index": "int64",
        "data/file_index": "int64",
        "dataset_from_index": "int64",
        "dataset_to_index": "int64",
        "meta/episodes/chunk_index": "int64",
        "meta/episodes/file_index": "int64",
    }
    for key in videos:
        expected |= {
            f"videos/{key}/chunk_index": "int64",
            f"videos/{key}/file_index": "int64",
            f"videos/{key}/from_timestamp": "double",
            f"videos/{key}/to_timestamp": "double",
        }
    for key in (*numbers, *videos):
        expected[f"stats/{key}/count"] = "list<element: int64>"
        for name in STATISTICS:
            kind = "int64" if key in whole and name in ("min", "max") else "double"
            expected[f"stats/{key}/{name}"] = (
                f"list<element: {kind}>" if key in numbers else "list<element: list<element: list<element: double>>>"
            )
    assert {field.name: str(field.type) for field in pq.read_schema(exported / EPISODES)} == expected
    tasks = pq.read_table(exported / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": list(INSTRUCTIONS)}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_episodes_and_counters_lead_to_rows_and_images(exported):
    rows, episodes = pq.read_table(exported / ROWS), pq.read_table(exported / EPISODES).to_pylist()
    lengths = [8, 9, 10, 5, 6]
    assert [episode["length"] for episode in episodes] == lengths
    assert [episode["tasks"] for episode in episodes] == [[INSTRUCTIONS[0]]] * 3 + [[INSTRUCTIONS[1]]] * 2
    ends = np.cumsum(lengths)
    for number, (episode, end, length) in enumerate(zip(episodes, ends, lengths, strict=True)):
        start = end - length
        assert (episode["dataset_from_index"], episode["dataset_to_index"]) == (start, end)
        mine = rows.slice(start, length).to_pydict()
        assert mine["episode_index"] == [number] * length
        assert mine["index"] == list(range(start, end)) and mine["frame_index"] == list(range(length))
        assert mine["task_index"] == [int(number > 2)] * length
        np.testing.assert_allclose(mine["timestamp"], np.arange(length) / 20, rtol=1e-6)
        for key in (camera.lerobot_key for camera in CAMERAS):
            assert episode[f"videos/{key}/from_timestamp"] == pytest.approx(start / 20)
            assert episode[f"videos/{key}/to_timestamp"] == pytest.approx(end / 20)


def test_info_states_version_rate_names_units_and_where_the_files_are(exported):
    info = json.loads((exported / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "panda",
        "total_episodes": 5,
        "total_frames": 38,
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 20,
        "splits": {"train": "0:5"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert features["observation.state"] == {
        "dtype": "float32",
        "shape": [9],
        "names": [*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1", "panda_finger_joint2"],
        "info": {"units": ["rad"] * 7 + ["m"] * 2},
    }
    assert features["action"] == {
        "dtype": "float32",
        "shape": [7],
        "names": ["x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper"],
        "info": {
            "units": ["0.05 m per step"] * 3 + ["0.5 rad per step"] * 3 + ["-1 open, 1 closed"],
            "frame": "panda_link0",
        },
    }
    for key in (camera.lerobot_key for camera in CAMERAS):
        assert features[key] == {
            "dtype": "video",
            "shape": [16, 16, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": 16,
                "video.width": 16,
                "video.channels": 3,
                "video.fps": 20,
                "has_audio": False,
                "video.codec": "h264",
                "video.pix_fmt": "gbrp",
                "is_depth_map": False,
            },
        }
        video = imageio.get_reader(exported / info["video_path"].format(video_key=key, chunk_index=0, file_index=0))
        assert video.get_meta_data()["fps"] == 20 and video.get_meta_data()["codec"] == "h264"
    assert {key: feature for key, feature in features.items() if key in layout.COUNTERS} == {
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{
            key: {"dtype": "int64", "shape": [1], "names": None}
            for key in ("frame_index", "episode_index", "index", "task_index")
        },
    }


def test_statistics_are_those_of_all_rows_and_pixels(files, exported):
    demos = [demo for path in files for demo in demos_of(path)[1]]
    stored = json.loads((exported / "meta/stats.json").read_text())
    (first, *_) = pq.read_table(exported / EPISODES).to_pylist()
    of_first = {name: first[f"stats/action/{name}"] for name in (*STATISTICS, "count")}
    for statistics, actions in (
        (stored["action"], np.concatenate([demo.action for demo in demos])),
        (of_first, demos[0].action),
    ):
        check_statistics(statistics, actions.astype(np.float64), "linear")
    frames = np.concatenate([demo.images["wrist"] for demo in demos])
    of_images = stored["observation.images.wrist"]
    assert all(np.shape(of_images[name]) == (3, 1, 1) for name in STATISTICS)
    flat = {name: np.ravel(value) for name, value in of_images.items()}
    check_statistics(flat | {"count": [len(frames) * 256]}, frames.reshape(-1, 3) / 255, "inverted_cdf")
    assert of_images["count"] == [38] and stored["index"]["max"] == [37] and stored["task_index"]["min"] == [0]


def check_statistics(statistics, table, method):
    quantiles = np.quantile(table, (0.01, 0.1, 0.5, 0.9, 0.99), axis=0, method=method)
    expected = [table.min(0), table.max(0), table.mean(0), table.std(0), *quantiles]
    for name, value in zip(STATISTICS, expected, strict=True):
        np.testing.assert_allclose(statistics[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    assert statistics["count"] == [len(table)]


@pytest.mark.parametrize(
    ("sizes", "lossless", "said"),
    [
        ((16, 32), True, "demo_0 has images of"),
        ((17,), False, "images are 17x17 px, and video of this kind needs"),
        ((), False, "no demonstration file given"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(libero_file, tmp_path, sizes, lossless, said, capsys):
    sources = [str(libero_file(str(size), size_px=size, demos=1)) for size in sizes]
    out = tmp_path / "out" / "dataset"
    assert main.run(["export", "lerobot", *sources, "--out", str(out), *(["--lossless"] if lossless else [])]) == 2
    assert said in capsys.readouterr().err
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_the_message_of_ffmpeg_is_reported(tmp_path):
    (tmp_path / "0.mp4").mkdir()
    videos = VideoFiles(lambda number: tmp_path / f"{number}.mp4", LOSSLESS, 20, 1000)
    with pytest.raises(UserError, match="0.mp4: the video could not be written: .*Is a directory"):
        for _ in range(2):  # the first is rejected here, or the last when the file is closed
            videos.add(np.zeros((50, 64, 64, 3), np.uint8))
        videos.close()


def test_a_folder_in_use_is_not_written_into(files, tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert main.run(["export", "lerobot", str(files[0]), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path} exists and is not empty; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
