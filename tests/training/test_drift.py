"""Drift against numbers known beforehand: a student that is the teacher but for one bias."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.spec import libero_spec
from m2distill_training.data.store import open_store
from m2distill_training.engine.train import train
from m2distill_training.evaluation.drift import _batch, measure_drift
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder

SHIFT = 0.25


@pytest.fixture
def run(libero_file, tmp_path) -> RunFolder:
    """Three stages; the second policy equals the first, the third differs by SHIFT in one bias of the text token."""
    files = [libero_file(text, instruction=text, seed=seed) for seed, text in enumerate(("milk", "soup", "juice"))]
    config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
    run = train(config, files, tmp_path / "run")
    first = load_checkpoint(run.checkpoint(1))
    for stage in (2, 3):
        later = load_checkpoint(run.checkpoint(stage))
        state = {name: x.clone() for name, x in first.state_dict.items()}
        state["text.bias"][0] += SHIFT * (stage == 3)
        save_checkpoint(run.checkpoint(stage), dataclasses.replace(later, state_dict=state))
    return run


def test_only_what_moved_has_drifted_and_by_the_known_distance(run):
    drift = measure_drift(run.path)
    assert drift == read_json(run.path / "drift.json")
    entries = {(e["instruction"], e["stage"]): e for e in drift["entries"]}
    assert set(entries) == {("milk", 2), ("milk", 3), ("soup", 3)}
    assert [entries[key]["learned_in_stage"] for key in entries] == [1, 1, 2]
    same, moved = entries["milk", 2], entries["milk", 3]
    assert set(same["distance"].values()) == {0.0}
    assert same["policy_kl"] == 0.0
    assert moved["distance"].pop("text") == pytest.approx(SHIFT**2 / debug().model.width, rel=1e-4)
    assert set(moved["distance"].values()) == {0.0}
    assert set(moved["distance"]) == {"agentview", "wrist", "joint", "gripper"}
    assert moved["policy_kl"] != 0.0


def test_relative_drift_is_over_the_teacher_s_mean_square(run):
    checkpoint = load_checkpoint(run.checkpoint(1))
    text = checkpoint.instructions["milk"]
    token = checkpoint.state_dict["text.weight"] @ torch.from_numpy(text) + checkpoint.state_dict["text.bias"]
    expected = SHIFT**2 / token.square().sum().item()
    moved = next(e for e in measure_drift(run.path)["entries"] if (e["instruction"], e["stage"]) == ("milk", 3))
    assert moved["relative"]["text"] == pytest.approx(expected, rel=1e-4)


def test_replayed_demos_are_left_out_as_long_as_there_are_others(libero_file):
    path = libero_file(demos=3)
    spec = libero_spec(16, 4, "test", 8)
    store = open_store(path, spec, "as_stored")
    text = np.zeros(spec.text_width, np.float32)
    with h5py.File(path) as file:
        joints = [file[f"data/demo_{i}/obs/joint_states"][:].astype(np.float32) for i in range(3)]
    seen = _batch(store, {0, 2}, text, history=4)["joint"].reshape(-1, 7).numpy()
    assert {tuple(row) for row in seen} == {tuple(row) for row in joints[1]}
    everything = _batch(store, {0, 1, 2}, text, history=4)["joint"].reshape(-1, 7).numpy()
    assert {tuple(row) for row in everything} <= {tuple(row) for row in np.concatenate(joints)}
    assert len(everything) == (9 + 10 + 11) * 4  # windows x steps


def test_data_that_changed_since_is_rejected(run, libero_file):
    libero_file("milk", instruction="milk", seed=9)
    with pytest.raises(RunError, match="milk_demo.hdf5 has changed since the run learned it"):
        measure_drift(run.path)


@pytest.mark.parametrize("metrics", [{}, {"replayed_demos": {"milk": ["0"]}}])
def test_a_checkpoint_that_does_not_say_what_was_replayed_is_rejected(run, metrics):
    path = run.checkpoint(2)
    save_checkpoint(path, dataclasses.replace(load_checkpoint(path), metrics=metrics))
    with pytest.raises(RunError, match="2/checkpoint does not record which demonstrations were replayed"):
        measure_drift(run.path)
