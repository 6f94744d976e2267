"""Export to LeRobot's format and import of it, also of datasets as others write them."""

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
from lerobot_files import EPISODES, INSTRUCTIONS, ROWS, VIDEO, assert_same, demos_of, two_tasks

from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_training.cli import main
from m2distill_training.data.lerobot import layout
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot


@pytest.fixture(scope="module")
def files(write_libero, tmp_path_factory):
    return two_tasks(write_libero, tmp_path_factory.mktemp("demos"))


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
    paths = import_lerobot(dataset, tmp_path / "out", [Camera("agentview", lerobot_key=feature), CAMERAS[1]])
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
        (set_info("codebase_version", to="v1.6"), "codebase_version is 'v1.6', expected 'v3.0' or 'v2.1'; convert"),
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
            "observation.images.agentview [16, 16, 3]; name the features in a file for --cameras, as lerobot_key",
        ),
        (
            set_info("features", "observation.state", "shape", to=[8]),
            "the pose of the hand and two fingers; name it with --layout libero",
        ),
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
    assert capsys.readouterr().out == f"{out}: 3 episodes, 27 steps, 1 task\nnext: m2distill data show {out}\n"
    assert main.run(["import", "lerobot", str(out), "--out", str(back)]) == 0
    assert capsys.readouterr().out.startswith(f"{back / 'pick_up_the_milk_demo.hdf5'}\nnext: m2distill train ")
