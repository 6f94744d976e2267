"""LeRobot datasets: JSON, parquet and mp4."""

import io
import json

import h5py
import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import byte_edits, each_value_odd, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Link, Reader

from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot
from m2distill_training.data.videos import SMALL, VideoFiles

INFO, TASKS = "set/meta/info.json", "set/meta/tasks.parquet"
EPISODES, ROWS = "set/meta/episodes/chunk-000/file-000.parquet", "set/data/chunk-000/file-000.parquet"
WRIST = "observation.images.wrist"
VIDEO = f"set/videos/{WRIST}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Two episodes of three steps."""
    folder, rng = tmp_path_factory.mktemp("good"), np.random.default_rng(0)
    with h5py.File(folder / "a_demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": "go"})
        for i in range(2):
            demo = data.create_group(f"demo_{i}")
            demo["actions"] = rng.uniform(-1, 1, (4, 7))
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                demo[f"obs/{camera}"] = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
            demo["obs/joint_states"], demo["obs/gripper_states"] = rng.normal(size=(4, 7)), rng.uniform(size=(4, 2))
    export_lerobot([folder / "a_demo.hdf5"], folder / "set")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "set").rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with Reader(
        lambda case: import_lerobot(case / "set", case / "out"),
        tmp_path_factory.mktemp("lerobot"),
        programs=("ffmpeg",),
    ) as reader:
        yield reader


def table(content: bytes) -> list[dict]:
    return pq.read_table(io.BytesIO(content)).to_pylist()


def parquet(rows) -> bytes | None:
    """None for rows that parquet cannot hold."""
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), buffer)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        return None
    return buffer.getvalue()


def test_a_valid_dataset_is_accepted(reader, good):
    assert {INFO, TASKS, EPISODES, ROWS, VIDEO} < good.keys() and reader.judge(good) == ""
    assert reader.judge({**good, **{name: parquet(table(good[name])) for name in (TASKS, EPISODES, ROWS)}}) == ""


@fuzzed(60, name=st.sampled_from([TASKS, EPISODES, ROWS]), edits=byte_edits)
def test_damaged_bytes_of_tables(reader, good, name, edits):
    reader.judge({**good, name: edit_bytes(good[name], edits)})


@fuzzed(25, name=st.sampled_from([VIDEO, INFO]), edits=byte_edits)
def test_damaged_bytes_of_videos_and_info(reader, good, name, edits):
    reader.judge({**good, name: edit_bytes(good[name], edits)})


@fuzzed(60, edits=value_edits)
def test_changed_values_of_info(reader, good, edits):
    reader.judge({**good, INFO: to_json(edit_values(json.loads(good[INFO]), edits))})


NEEDED = ("codebase_version", "fps", "total_episodes", "data_path", "video_path", "features")


def test_odd_values_of_every_info_key_that_is_read(reader, good):
    info = json.loads(good[INFO])
    read = {name: info[name] for name in NEEDED} | {"features": {"action": info["features"]["action"]}}
    for changed in each_value_odd(read)[::3]:
        if not isinstance(changed, dict):
            continue
        if isinstance(changed.get("features"), dict):
            changed["features"] = info["features"] | changed["features"]
        reader.judge({**good, INFO: to_json({**info, **changed})})


def with_wrist(good, **changes) -> bytes:
    info = json.loads(good[INFO])
    info["features"][WRIST] |= changes
    return to_json(info)


def test_odd_shapes_of_images(reader, good):
    for shape in each_value_odd([16, 16, 3]):
        reader.judge({**good, INFO: with_wrist(good, shape=shape)})


def test_small_files_of_large_images_are_rejected(reader, good, tmp_path):
    film = VideoFiles(lambda number: tmp_path / "large.mp4", SMALL, 20, 10**9)
    film.add(np.zeros((6, 4096, 4096, 3), np.uint8))
    film.close()
    video = (tmp_path / "large.mp4").read_bytes()
    assert len(video) < 100_000 and reader.judge({**good, VIDEO: video})
    cell = {"bytes": imageio.imwrite("<bytes>", np.zeros((4096, 4096, 3), np.uint8), format="png")}
    large = {ROWS: parquet([{**row, WRIST: cell} for row in table(good[ROWS])]), INFO: with_wrist(good, dtype="image")}
    assert len(large[ROWS]) < 1_000_000 and "[4096" in reader.judge({**good, **large})


@fuzzed(80, name=st.sampled_from([TASKS, EPISODES, ROWS]), edits=value_edits)
def test_changed_values_of_tables(reader, good, name, edits):
    if (content := parquet(edit_values(table(good[name]), edits))) is not None:
        reader.judge({**good, name: content})


@pytest.mark.parametrize(
    "name",
    [
        "episode_index",
        "length",
        "data/chunk_index",
        "tasks",
        "videos/observation.images.wrist/file_index",
        "videos/observation.images.wrist/from_timestamp",
    ],
)
def test_columns_of_other_types(reader, good, name):
    rows = table(good[EPISODES])
    for value in (-1, 2**62, 1e300, float("nan"), "x", [1], ["go", "go"], {"a": 1}, b"\xff", True):
        for changed in ([{**rows[0], name: value}, rows[1]], [{**row, name: value} for row in rows]):
            if (content := parquet(changed)) is not None:
                reader.judge({**good, EPISODES: content})


@pytest.mark.parametrize(
    "path",
    [
        "../../outside/{chunk_index}{file_index}.parquet",
        "/etc/{chunk_index}{file_index}",
        "{chunk_index:>9999999999}{file_index}",
        "{chunk_index.__class__}{file_index}",
        "{chunk_index}{file_index}\0",
        "{chunk_index}{file_index}" + "x" * 5000,
    ],
)
@pytest.mark.parametrize("key", ["data_path", "video_path"])
def test_paths_outside_the_dataset_are_rejected(reader, good, path, key):
    outside = reader.folder / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "00.parquet").write_bytes(good[ROWS])
    assert key in reader.judge({**good, INFO: to_json({**json.loads(good[INFO]), key: path})})


@pytest.mark.parametrize("name", [INFO, TASKS, EPISODES, ROWS, VIDEO])
def test_links_in_place_of_files(reader, good, name):
    for target in ("/dev/zero", "nothing", "/tmp"):
        assert reader.judge({**good, name: Link(target)})
