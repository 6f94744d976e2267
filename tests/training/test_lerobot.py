"""LeRobot datasets out and in. What is expected of the format is written down from datasets that LeRobot 0.4 wrote."""

import json
import shutil
from pathlib import Path

import h5py
import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.videos import LOSSLESS, VideoFiles

INSTRUCTIONS = ("pick up the milk", "Open the top drawer!")
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ROWS = "data/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.{}/chunk-000/file-000.mp4"
STATISTICS = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")


def demos_of(path):
    with open_libero(path, "before") as file:
        return file.instruction, list(file.demos())


def assert_same(path, source):
    (instruction, demos), (expected, sources) = demos_of(path), demos_of(source)
    assert instruction == expected
    for demo, other in zip(demos, sources, strict=True):
        np.testing.assert_array_equal(demo.joint, other.joint)
        np.testing.assert_array_equal(demo.gripper, other.gripper)
        np.testing.assert_array_equal(demo.action, other.action)
        for camera, frames in demo.images.items():
            np.testing.assert_array_equal(frames, other.images[camera])


@pytest.fixture(scope="module")
def files(write_libero, tmp_path_factory):
    """Two tasks: three demos of 8, 9 and 10 pairs, two of 5 and 6."""
    folder = tmp_path_factory.mktemp("demos")
    return [
        write_libero(folder / "a_demo.hdf5", instruction=INSTRUCTIONS[0]),
        write_libero(folder / "b_demo.hdf5", instruction=INSTRUCTIONS[1], demos=2, steps=6, seed=1),
    ]


@pytest.fixture(scope="module")
def exported(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("lerobot") / "dataset"
    export_lerobot(files, out, lossless=True)
    return out


@pytest.fixture
def dataset(exported, tmp_path):
    """A copy, for changing."""
    return Path(shutil.copytree(exported, tmp_path / "dataset"))


def test_there_and_back_every_number_and_pixel(files, exported, tmp_path):
    paths = import_lerobot(exported, tmp_path / "out")
    assert [path.name for path in paths] == ["pick_up_the_milk_demo.hdf5", "open_the_top_drawer_demo.hdf5"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths)
    for path, source in zip(paths, files, strict=True):
        assert_same(path, source)
        with h5py.File(path) as file:
            assert not file["data"].attrs["obs_after_action"]


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
        for key in layout.CAMERAS.values():
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
    for key in layout.CAMERAS.values():
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


def test_video_loses_little_of_a_image_that_is_no_noise(libero_file, tmp_path):
    path = libero_file(demos=2, steps=12, size_px=64)
    y, x = np.mgrid[:64, :64]
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            for key in ("agentview_rgb", "eye_in_hand_rgb"):
                steps = len(demo["actions"])
                demo["obs"][key][:] = np.stack(
                    [np.stack([2 * x + 6 * t, 3 * y, 120 + 5 * t + 0 * x], -1) for t in range(steps)]
                )
    info = export_lerobot([path], tmp_path / "out")
    assert info["features"]["observation.images.wrist"]["info"]["video.pix_fmt"] == "yuv420p"
    (back,) = import_lerobot(tmp_path / "out", tmp_path / "back")
    for demo, other in zip(demos_of(back)[1], demos_of(path)[1], strict=True):
        for camera, frames in demo.images.items():
            error = np.abs(frames.astype(int) - other.images[camera])
            assert error.mean() < 2 and error.max() < 20  # the next step's image differs by 4 in the mean


def test_episodes_in_several_videos_are_found(files, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "VIDEO_FILE_MB", 0)
    monkeypatch.setattr(layout, "FILES_PER_CHUNK", 2)
    export_lerobot(files, tmp_path / "out", lossless=True)
    videos = sorted(
        path.relative_to(tmp_path / "out/videos/observation.images.wrist").as_posix()
        for path in tmp_path.rglob("*wrist*/*/*.mp4")
    )
    assert videos == [f"chunk-00{n // 2}/file-00{n % 2}.mp4" for n in range(5)]
    for path, source in zip(import_lerobot(tmp_path / "out", tmp_path / "back"), files, strict=True):
        assert_same(path, source)


# ---- datasets as others write them


def change_info(change):
    def apply(root):
        path = root / "meta/info.json"
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))

    return apply


def change_rows(change, name=ROWS):
    def apply(root):
        pq.write_table(change(pq.read_table(root / name)), root / name)

    return apply


def with_column(name, values):
    """change(table): the column's new values, from its old ones."""

    def change(table):
        return table.set_column(table.column_names.index(name), name, pa.array(values(table[name].to_pylist())))

    return change


def test_columns_are_taken_by_name(files, dataset, tmp_path):
    def shuffle(info):
        names, units = info["features"]["action"]["names"], info["features"]["action"]["info"]["units"]
        info["features"]["action"] |= {"names": {"motors": names[::-1]}, "info": {"units": units[::-1]}}

    change_info(shuffle)(dataset)
    change_rows(with_column("action", lambda rows: [row[::-1] for row in rows]))(dataset)  # list of any length, too
    (path, _) = import_lerobot(dataset, tmp_path / "out")
    assert_same(path, files[0])


def test_images_as_images_tasks_as_lerobot_names_them_and_rows_in_several_files(files, dataset, tmp_path):
    feature = "observation.images.front"
    frames = imageio.mimread(dataset / VIDEO.format("agentview"), memtest=False)
    pngs = [{"bytes": imageio.imwrite("<bytes>", frame, format="png"), "path": None} for frame in frames]
    rows = pq.read_table(dataset / ROWS).append_column(feature, pa.array(pngs))
    second = dataset / "data/chunk-000/file-001.parquet"
    pq.write_table(rows.filter(pc.field("episode_index") < 2), dataset / ROWS)
    pq.write_table(rows.filter(pc.field("episode_index") >= 2), second)
    change_rows(with_column("data/file_index", lambda _: [0, 0, 1, 1, 1]), EPISODES)(dataset)
    change_rows(lambda table: table.rename_columns(["task_index", "__index_level_0__"]), "meta/tasks.parquet")(dataset)

    def as_image(info):
        info["features"][feature] = {"dtype": "image", "shape": [16, 16, 3], "names": ["height", "width", "channel"]}
        del info["features"]["observation.images.agentview"]

    change_info(as_image)(dataset)
    paths = import_lerobot(dataset, tmp_path / "out", {"agentview": feature, "wrist": "observation.images.wrist"})
    for path, source in zip(paths, files, strict=True):
        assert_same(path, source)


# ---- bad input


def truncate(name, share=0.5):
    def apply(root):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(len(content) * share)])

    return apply


def short_video(root):
    """The wrist's video replaced by one of half as many images."""
    frames = imageio.mimread(root / VIDEO.format("wrist"), memtest=False)
    with imageio.get_writer(root / VIDEO.format("wrist"), fps=20, macro_block_size=2) as writer:
        for frame in frames[:20]:
            writer.append_data(frame)


def set_info(*keys, to):
    def change(info):
        place = info
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return change_info(change)


def first(value):
    """values of a column, the first one changed"""
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda root: (root / "meta/info.json").unlink(),
            "info.json: no such file; name the folder of a LeRobot dataset",
        ),
        (truncate("meta/info.json"), "info.json is not JSON"),
        (set_info("codebase_version", to="v2.1"), "codebase_version is 'v2.1', expected 'v3.0'; convert the dataset"),
        (set_info("fps", to=30), "fps is 30, expected 20"),
        (change_info(lambda info: info.pop("data_path")), "lacks data_path"),
        (set_info("features", to=["action"]), "features is ['action'], expected objects"),
        (
            set_info("data_path", to="data/{episode}.parquet"),
            "data_path is 'data/{episode}.parquet', expected a path with {chunk_index} and {file_index}",
        ),
        (
            change_info(lambda info: info["features"].pop("observation.images.wrist")),
            "no feature observation.images.wrist; there are: observation.state [9], action [7], "
            "observation.images.agentview [16, 16, 3]; name the images with --agentview and --wrist",
        ),
        (set_info("features", "observation.state", "shape", to=[8]), "observation.state has shape [8]"),
        (set_info("features", "observation.state", "names", to=None), "observation.state has the names None, expected"),
        (set_info("features", "action", "info", to={"units": ["m"] * 7}), "action is in ['m', 'm'"),
        (set_info("features", "action", "info", to={"units": "m"}), "action is in m, expected ['0.05"),
        (set_info("features", "action", "names", to={"a": 1}), "action has the names [1], expected ['x', 'y'"),
        (
            set_info("features", "observation.images.wrist", "dtype", to="float32"),
            "observation.images.wrist is float32",
        ),
        (change_rows(with_column("action", first([1.5] * 7))), "episode 0: action reaches 1.5, allowed -1 to 1"),
        (change_rows(with_column("action", first([float("nan")] * 7))), "episode 0: action is not finite in row 0"),
        (change_rows(with_column("action", first([0.0] * 6))), "episode 0: action is list<"),
        (
            change_rows(with_column("action", lambda rows: ["left"] * len(rows))),
            "episode 0: action is string, expected 7",
        ),
        (change_rows(with_column("action", first(None))), "has rows without action"),
        (
            change_rows(lambda table: table.drop_columns(["observation.state"])),
            "has no column observation.state; there are: action, timestamp",
        ),
        (change_rows(with_column("timestamp", first(0.01))), "episode 0 has timestamps that are not 0, 1/20, ... s"),
        (change_rows(with_column("task_index", first(1))), "episode 0 has rows of the tasks ['Open the top drawer!'"),
        (change_rows(lambda table: table.slice(1)), "has 7 rows of episode 0, expected 8"),
        (
            change_rows(with_column("tasks", first(list(INSTRUCTIONS))), EPISODES),
            "episode 0 has the instructions ['pick",
        ),
        (change_rows(lambda table: table.slice(1), EPISODES), "lists 4 episodes, info.json 5"),
        (
            change_rows(lambda table: table.select(["task_index"]), "meta/tasks.parquet"),
            "has the columns ['task_index']",
        ),
        (truncate(ROWS), "file-000.parquet is not a readable parquet file"),
        (truncate(EPISODES), "file-000.parquet is not a readable parquet file"),
        (lambda root: (root / ROWS).unlink(), "file-000.parquet: no such file"),
        (truncate(VIDEO.format("wrist")), "file-000.mp4 holds 0 images from 0 s on, expected 8"),
        (lambda root: (root / VIDEO.format("wrist")).write_text("hello"), "file-000.mp4 holds 0 images"),
        (lambda root: (root / VIDEO.format("agentview")).unlink(), "file-000.mp4: no such file"),
        (short_video, "file-000.mp4 holds 3 images from 0.85 s on, expected 10"),
    ],
)
def test_what_does_not_fit_is_named_and_leaves_nothing_behind(dataset, tmp_path, damage, said, capsys):
    damage(dataset)
    assert main.run(["import", "lerobot", str(dataset), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert said in printed and str(dataset) in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_there_already_is_not_touched(exported, tmp_path, capsys):
    there = tmp_path / "open_the_top_drawer_demo.hdf5"
    there.write_text("mine")
    assert main.run(["import", "lerobot", str(exported), "--out", str(tmp_path)]) == 2
    assert f"{there} exists; name another folder" in capsys.readouterr().err
    assert there.read_text() == "mine" and list(tmp_path.iterdir()) == [there]


def test_export_and_import_from_the_command_line(files, tmp_path, capsys):
    out, back = tmp_path / "dataset", tmp_path / "back"
    assert main.run(["export", "lerobot", str(files[0]), "--out", str(out), "--lossless"]) == 0
    assert capsys.readouterr().out == f"{out}: 3 episodes, 27 steps, 1 task\n"
    assert main.run(["import", "lerobot", str(out), "--out", str(back)]) == 0
    assert capsys.readouterr().out.startswith(f"{back / 'pick_up_the_milk_demo.hdf5'}\nnext: m2distill train ")


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
