"""LeRobot sets of LIBERO as others convert them: named layouts, format 2.1, turned images."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import assert_same

from m2distill_policy.errors import DataError, UserError
from m2distill_policy.spec import HAND_POSE
from m2distill_training.cli import main
from m2distill_training.data.lerobot.layouts import ANY4LEROBOT, TURNS, upright
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.lerobot.lerobot_import import import_lerobot
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.videos import LOSSLESS, VideoFiles

JOINT, GRIPPER = (key for key, _, _ in ANY4LEROBOT.state)
IMAGES = {"agentview": "observation.images.image", "wrist": "observation.images.wrist_image"}
INSTRUCTION = "pick up the alphabet soup and place it in the basket"


@pytest.fixture(scope="module")
def source(write_libero, tmp_path_factory):
    """One task of three demos; fingers with LIBERO's signs, which follow the commands."""
    path = write_libero(tmp_path_factory.mktemp("source") / "a_demo.hdf5", instruction=INSTRUCTION)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            commands = np.sign(demo["actions"][:, 6])
            width = np.clip(0.02 - 0.003 * np.cumsum(np.concatenate([[0], commands[1:]])), 0, 0.04)
            demo["obs/gripper_states"][:] = np.stack([width, -width], 1)
            demo["obs/ee_states"] = np.cumsum(demo["obs/joint_states"][:, :6], 0)
    return path


def set_of(
    source: Path, root: Path, version: str, fps: int, turn: str = "mirrored", sign: float = 1.0, hand=False
) -> Path:
    """Write any4lerobot's layout, or with `hand` that of lerobot/libero, by pyarrow and ffmpeg alone."""
    with open_libero(source, "before", state="hand" if hand else "joints") as file:
        demos, instruction = list(file.demos()), file.instruction
    older = version == "v2.1"
    rows, episodes, total = [], [], 0
    for number, demo in enumerate(demos):
        T = len(demo.action)
        rows.append(
            pa.table(
                {
                    JOINT: list(demo.joint),
                    GRIPPER: list(demo.gripper * sign),
                    "observation.state": list(np.hstack([demo.joint[:, :6], demo.gripper])),
                    "action": list(demo.action),
                    "timestamp": (np.arange(T) / fps).astype(np.float32),
                    "frame_index": np.arange(T),
                    "episode_index": np.full(T, number),
                    "index": np.arange(total, total + T),
                    "task_index": np.zeros(T, np.int64),
                }
            )
        )
        episodes.append({"episode_index": number, "tasks": [instruction], "length": T, "from": total / fps})
        total += T
    chunk = "chunk-{episode_chunk:03d}" if older else "chunk-{chunk_index:03d}"
    name = "episode_{episode_index:06d}" if older else "file-{file_index:03d}"
    paths = {
        "data_path": f"data/{chunk}/{name}.parquet",
        "video_path": f"videos/{chunk}/{{video_key}}/{name}.mp4"
        if older
        else f"videos/{{video_key}}/{chunk}/{name}.mp4",
    }

    def place(kind, number, key=""):
        numbers = {"chunk_index": 0, "file_index": 0, "episode_chunk": 0, "episode_index": number, "video_key": key}
        path = root / paths[kind].format(**numbers)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    if older:
        for number, table in enumerate(rows):
            pq.write_table(table, place("data_path", number))
    else:
        pq.write_table(pa.concat_tables(rows), place("data_path", 0))
    for camera, key in IMAGES.items():
        films = [upright(demo.images[camera], turn) for demo in demos]  # a turn is its own inverse
        for number, film in enumerate(films if older else [np.concatenate(films)]):
            videos = VideoFiles(
                lambda _, number=number, key=key: place("video_path", number, key), LOSSLESS, fps, 1 << 30
            )
            videos.add(np.ascontiguousarray(film))
            videos.close()
    (root / "meta").mkdir()
    if older:
        lines = [json.dumps({k: v for k, v in e.items() if k != "from"}) for e in episodes]
        (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
        (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": instruction}) + "\n")
    else:
        table = {k: [e[k] for e in episodes] for k in ("episode_index", "tasks", "length")}
        table |= {f"data/{k}": [0] * len(episodes) for k in ("chunk_index", "file_index")}
        for key in IMAGES.values():
            table |= {f"videos/{key}/{k}": [0] * len(episodes) for k in ("chunk_index", "file_index")}
            table[f"videos/{key}/from_timestamp"] = [e["from"] for e in episodes]
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        pq.write_table(pa.table(table), root / "meta/episodes/chunk-000/file-000.parquet")
        pq.write_table(pa.table({"task_index": [0], "task": [instruction]}), root / "meta/tasks.parquet")
    size = demos[0].images["wrist"].shape[1:]
    features = {
        key: {"dtype": "video", "shape": list(size), "names": ["height", "width", "rgb"]} for key in IMAGES.values()
    }
    widths = {"observation.state": 8, "action": 7} | ({} if hand else {JOINT: 7, GRIPPER: 2})
    features |= {
        key: {"dtype": "float32", "shape": [n], "names": {"motors": [f"m{i}" for i in range(n)]}}
        for key, n in widths.items()
    }
    info = {
        "codebase_version": version,
        "fps": fps,
        "total_episodes": len(demos),
        "chunks_size": 1000,
        **paths,
        "features": features,
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    return root


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("fps", [10, 20])
def test_any4lerobot_s_layout_is_imported_number_for_number_and_upright(source, tmp_path, version, fps):
    (path,) = import_lerobot(set_of(source, tmp_path / "set", version, fps), tmp_path / "out", layout="any4lerobot")
    assert path.name == f"{INSTRUCTION.replace(' ', '_')}_demo.hdf5"
    assert_same(path, source)


@pytest.mark.parametrize("turn", TURNS)
def test_images_are_turned_as_named(source, tmp_path, turn):
    root = set_of(source, tmp_path / "set", "v2.1", 10, turn)
    (path,) = import_lerobot(root, tmp_path / "out", layout="any4lerobot", images=turn)
    assert_same(path, source)


def test_a_layout_is_named_and_never_guessed(source, tmp_path):
    root = set_of(source, tmp_path / "set", "v3.0", 20)
    with pytest.raises(DataError, match="as in the layout any4lerobot of LIBERO; name it with --layout any4lerobot"):
        import_lerobot(root, tmp_path / "out")
    with pytest.raises(UserError, match="unknown layout"):
        import_lerobot(root, tmp_path / "out", layout="any4")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"fps": 30}))
    with pytest.raises(DataError, match="fps is 30, expected 10 or 20"):
        import_lerobot(root, tmp_path / "out", layout="any4lerobot")
    del info["features"][JOINT]
    (root / "meta/info.json").write_text(json.dumps(info))
    for layout in (None, "any4lerobot"):
        with pytest.raises(DataError, match="the pose of the hand and two fingers; name it with --layout libero"):
            import_lerobot(root, tmp_path / "out", layout=layout)
    assert not (tmp_path / "out").exists()


def test_fingers_and_commands_of_other_signs_are_rejected(source, tmp_path):
    with pytest.raises(DataError, match="expected the first positive and the second negative, as in LIBERO"):
        root = set_of(source, tmp_path / "a", "v2.1", 20, sign=-1.0)
        import_lerobot(root, tmp_path / "out", layout="any4lerobot")
    turned = Path(shutil.copy(source, tmp_path / "turned_demo.hdf5"))
    with h5py.File(turned, "r+") as file:
        for demo in file["data"].values():
            demo["actions"][:, 6] *= -1
    with pytest.raises(DataError, match="fingers open when the last number of the action is positive"):
        import_lerobot(set_of(turned, tmp_path / "b", "v2.1", 20), tmp_path / "out", layout="any4lerobot")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("meta/episodes.jsonl", "{", "episodes.jsonl is not JSON"),
        ("meta/episodes.jsonl", '{"episode_index": 0}\n', "episodes.jsonl: line 1 is"),
        ("meta/tasks.jsonl", "[1]\n", "tasks.jsonl: line 1 is"),
        ("meta/tasks.jsonl", None, "tasks.jsonl: no such file"),
        ("data/chunk-000/episode_000001.parquet", None, "episode_000001.parquet: no such file"),
        ("videos/chunk-000/observation.images.image/episode_000002.mp4", "x", "holds 0 images"),
    ],
)
def test_a_damaged_set_of_format_2_1_is_named_in_one_line(source, tmp_path, name, content, said, capsys):
    root = set_of(source, tmp_path / "set", "v2.1", 10)
    (root / name).unlink() if content is None else (root / name).write_text(content)
    words = ["import", "lerobot", str(root), "--out", str(tmp_path / "out"), "--layout", "any4lerobot"]
    assert main.run(words) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_what_was_imported_is_exported_and_imported_again_equal(source, tmp_path):
    (path,) = import_lerobot(set_of(source, tmp_path / "set", "v2.1", 10), tmp_path / "out", layout="any4lerobot")
    export_lerobot([path], tmp_path / "again", lossless=True)
    (back,) = import_lerobot(tmp_path / "again", tmp_path / "back")
    assert_same(back, path)


@pytest.mark.sim
def test_the_named_turn_is_compared_with_an_image_of_the_simulator(source, tmp_path, capsys):
    from m2distill_sim.env_factory import make_env
    from m2distill_sim.suites import find_task, initial_states

    task = find_task("libero_object", 0)
    with make_env(task.suite, 0, None, {"agentview": (64, 64), "wrist": (64, 64)}) as env:
        images = env.reset(initial_states(task.suite, 0)[5]).images
    seen = Path(shutil.copy(source, tmp_path / "seen_demo.hdf5"))
    with h5py.File(seen, "r+") as file:
        for demo in file["data"].values():
            for camera, key in (("agentview", "agentview_rgb"), ("wrist", "eye_in_hand_rgb")):
                del demo[f"obs/{key}"]
                demo[f"obs/{key}"] = np.repeat(images[camera][None, ::-1], len(demo["actions"]), 0)
    words = ["import", "lerobot", str(set_of(seen, tmp_path / "set", "v2.1", 10)), "--layout", "any4lerobot", "--out"]
    assert main.run([*words, str(tmp_path / "right")]) == 0
    assert "compared with the simulator: 1 of 1 tasks agree" in capsys.readouterr().out
    for turn in ("upright", "rotated", "upside-down"):
        assert main.run([*words, str(tmp_path / "wrong"), "--images", turn]) == 2
        assert f"are mirrored, not {turn}: the correlation" in capsys.readouterr().err
    assert list((tmp_path / "wrong").iterdir()) == []


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_lerobot_s_libero_layout_is_imported_with_the_pose_of_the_hand(source, tmp_path, version):
    (path,) = import_lerobot(
        set_of(source, tmp_path / "set", version, 10, hand=True), tmp_path / "out", layout="libero"
    )
    with open_libero(path, "before", state="hand") as new, open_libero(source, "before", state="hand") as old:
        for demo, other in zip(new.demos(), old.demos(), strict=True):
            for name in ("joint", "gripper", "action"):
                np.testing.assert_array_equal(getattr(demo, name), getattr(other, name))
            np.testing.assert_array_equal(demo.images["wrist"], other.images["wrist"])
    with open_libero(path, "before") as file:
        assert file.robot.observes_hand  # as nothing else is there
    with (
        pytest.raises(DataError, match="obs/joint_states is missing"),
        open_libero(path, "before", state="joints") as f,
    ):
        next(f.demos())


@pytest.mark.sim
def test_a_policy_that_observes_the_hand_is_trained_and_evaluated(source, tmp_path):
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_sim.suites import find_task
    from m2distill_training.engine.train import train
    from m2distill_training.evaluation.evaluate import evaluate_checkpoint
    from m2distill_training.presets import debug

    (path,) = import_lerobot(set_of(source, tmp_path / "set", "v2.1", 10, hand=True), tmp_path / "out", layout="libero")
    short = dataclasses.replace(debug(), state="hand", optim=dataclasses.replace(debug().optim, budget=1))
    trained = train(short, [path], tmp_path / "run").checkpoint(1)
    assert load_checkpoint(trained).spec.joint_names == HAND_POSE
    tasks = [find_task("libero_object", 0)]
    result = evaluate_checkpoint(trained, tasks, 1, tmp_path / "result", max_steps=12, workers=0)
    (episode,) = result["tasks"][0]["runs"]
    assert (episode["steps"], episode["held"]) == (12, "")
