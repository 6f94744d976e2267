"""Run folders: configuration, datasets, logs, promotions, saved states and the memory of demonstrations."""

import hashlib
import io
import json

import numpy as np
import pytest
import torch
from damage import byte_edits, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Link, Reader

from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.presets import debug
from m2distill_training.promotion.promotion import current, rollback
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder, read_run

DATA = [{"path": f"{name}.hdf5", "key": name, "instruction": f"task {name}", "demos": 3} for name in "ab"]
LINES = [{"stage": k, "step": step, "loss": 0.5} for k in (1, 2) for step in (0, 1)]
PROMOTIONS = [{"action": "promote", "at": "x", "stage": k, "checkpoint_id": "x", "forced": False} for k in (1, 2)]
TASK = {"instruction": "task a", "source": "a.hdf5", "key": "a", "demos": [0]}
KEPT = "memory/0/replay"
ARRAYS = {
    "joint": np.zeros((3, 7), np.float32),
    "gripper": np.zeros((3, 2), np.float32),
    "action": np.zeros((3, 7), np.float32),
    "image_agentview": np.zeros((3, 8, 8, 3), np.uint8),
    "image_wrist": np.zeros((3, 8, 8, 3), np.uint8),
    "bounds": np.array([0, 3]),
    "text": np.zeros(4, np.float32),
}


def lines(documents) -> bytes:
    return b"".join(to_json(document) + b"\n" for document in documents)


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD = {
    "config.json": debug().to_json().encode(),
    "data.json": to_json(DATA),
    "metrics.jsonl": lines(LINES),
    "promotions.jsonl": lines(PROMOTIONS),
    "current": Link("stages/2/checkpoint"),
    f"{KEPT}/task.json": to_json(TASK),
    **{f"{KEPT}/{name}.npy": npy(array) for name, array in ARRAYS.items()},
}
DOCUMENTS = {"config.json": json.loads(debug().to_json()), "data.json": DATA, f"{KEPT}/task.json": TASK}


def read(case):
    """Call everything that reads a run folder without a checkpoint; rollback reports that it is missing."""
    read_run(case)
    run = RunFolder(case)
    run.metrics()
    run.load_state(1)
    part = load_task_memory(run.memory(0, "replay"), run.data()[0], CAMERA_NAMES)
    assert len(part.store.action[:]) == part.store.bounds[-1]
    current(case)
    try:
        rollback(case)
    except RunError:
        raise
    except Exception as error:
        if "no checkpoint at" not in str(error):
            raise


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    with Reader(read, tmp_path_factory.mktemp("run")) as reader:
        yield reader


def test_a_valid_run_folder_is_accepted(reader):
    assert reader.judge(GOOD) == ""


@fuzzed(100, name=st.sampled_from([*DOCUMENTS, "metrics.jsonl", "promotions.jsonl"]), edits=value_edits)
def test_changed_values_of_records(reader, name, edits):
    if name in DOCUMENTS:
        content = to_json(edit_values(DOCUMENTS[name], edits))
    else:
        changed = edit_values(LINES if name == "metrics.jsonl" else PROMOTIONS, edits)
        content = lines(changed) if isinstance(changed, list) else to_json(changed)
    reader.judge({**GOOD, name: content})


@fuzzed(100, name=st.sampled_from(sorted(set(GOOD) - {"current"})), edits=byte_edits)
def test_damaged_bytes_of_a_run(reader, name, edits):
    reader.judge({**GOOD, name: edit_bytes(GOOD[name], edits)})


@pytest.mark.parametrize("name", sorted(ARRAYS))
def test_arrays_of_wrong_shape_or_type(reader, name):
    for array in (
        np.zeros(0),
        np.float64(1),
        np.zeros((3, 7), "S3"),
        np.array([{}], object),
        np.array([5, 1, -3]),
        np.full((3, 7), np.nan, np.float32),
    ):
        reader.judge({**GOOD, f"{KEPT}/{name}.npy": npy(array)})


@pytest.mark.parametrize("target", ["stages/x/checkpoint", "/etc/passwd", "..", "current", "stages/99999/checkpoint"])
def test_links_outside_the_run(reader, target):
    reader.judge({**GOOD, "current": Link(target)})


@fuzzed(40, edits=byte_edits)
def test_damaged_bytes_of_a_saved_state(reader, edits):
    buffer = io.BytesIO()
    torch.save({"policy": {"a": torch.zeros(3)}, "step": 1}, buffer)
    content = edit_bytes(buffer.getvalue(), edits)
    digest = hashlib.sha256(content).hexdigest().encode()
    reader.judge({**GOOD, "stages/1/state.pt": digest + b"\n" + content})
