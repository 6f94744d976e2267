"""Checkpoints: exact round trips, and rejection of every damaged or foreign directory."""

import dataclasses
import hashlib
import json
import subprocess

import numpy as np
import pytest
import safetensors.torch
import torch

from m2distill_policy.checkpoint import FILES, SUMS, Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.errors import CheckpointError
from m2distill_policy.models import Policy, small
from m2distill_policy.spec import libero_spec

SPEC = libero_spec(size_px=64, history=4, text_encoder="all-MiniLM-L6-v2", text_width=384)
CONFIG = dataclasses.replace(small(), layers=1, mixture_hidden=16)


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    embeddings = np.random.default_rng(0).normal(size=(2, 384)).astype(np.float32)
    instructions = {"pick up the milk": embeddings[0], "öffne die Schublade": embeddings[1]}
    return Checkpoint(SPEC, CONFIG, Policy(CONFIG, SPEC).state_dict(), instructions, {"success": {"a": 0.8}})


@pytest.fixture
def saved(tmp_path, checkpoint):
    save_checkpoint(tmp_path / "step1", checkpoint)
    return tmp_path / "step1"


def reseal(path):
    """Write matching checksums, as an attacker would."""
    sums = "".join(f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES)
    (path / SUMS).write_text(sums)


def snapshot(path):
    return {p.relative_to(path): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_checkpoint_round_trip_preserves_everything(saved, checkpoint):
    loaded = load_checkpoint(saved)
    assert loaded.spec == checkpoint.spec
    assert loaded.model_config == checkpoint.model_config
    assert loaded.metrics == checkpoint.metrics
    assert loaded.state_dict.keys() == checkpoint.state_dict.keys()
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in checkpoint.state_dict.items())
    assert loaded.instructions.keys() == checkpoint.instructions.keys()
    assert all(np.array_equal(loaded.instructions[text], e) for text, e in checkpoint.instructions.items())


def test_a_loaded_policy_gives_the_same_mixture(saved, checkpoint):
    original = Policy(CONFIG, SPEC).eval()
    original.load_state_dict(checkpoint.state_dict)
    rebuilt = load_checkpoint(saved).build_policy().eval()
    torch.manual_seed(1)
    batch = {
        "images": {c.name: torch.rand(1, 2, 3, 64, 64) for c in SPEC.cameras},
        "joint": torch.randn(1, 2, 7),
        "gripper": torch.randn(1, 2, 2),
        "text": torch.randn(1, 384),
    }
    means = [policy(batch).dist.component_distribution.mean for policy in (original, rebuilt)]
    assert torch.equal(*means)


def test_the_id_depends_only_on_the_content(tmp_path, checkpoint):
    first = save_checkpoint(tmp_path / "a", checkpoint)
    again = save_checkpoint(tmp_path / "b", checkpoint)
    name = next(iter(checkpoint.state_dict))
    weights = {**checkpoint.state_dict, name: checkpoint.state_dict[name] + 1e-6}
    other = save_checkpoint(tmp_path / "c", dataclasses.replace(checkpoint, state_dict=weights))
    assert first == again == load_checkpoint(tmp_path / "a").id
    assert len(first) == 64
    assert other != first


def test_sha256sum_accepts_the_checkpoint(saved):
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=saved, check=True)


def test_the_files_contain_no_pickle(saved):
    assert sorted(p.name for p in saved.iterdir()) == sorted([*FILES, SUMS])
    for name in FILES:
        if name.endswith(".safetensors"):
            length = int.from_bytes((saved / name).read_bytes()[:8], "little")
            json.loads((saved / name).read_bytes()[8 : 8 + length])
        else:
            json.loads((saved / name).read_text())


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_flipped_bit_is_detected(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[len(content) // 2] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_truncated_file_is_named(saved, name):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"is damaged: .*{'' if name == SUMS else name} "):
        load_checkpoint(saved)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"is not a checkpoint: it lacks {name}"):
        load_checkpoint(saved)


def test_a_path_that_is_not_a_directory_is_rejected(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spec.json", b"{", "PolicySpec is not JSON"),
        ("spec.json", b"{}", "missing keys"),
        ("spec.json", b"\xff", "not a checkpoint of this version"),
        ("spec.json", b"[" * 100_000, "not a checkpoint of this version"),
        ("model.json", b'{"colour": 1}', "unknown keys"),
        ("weights.safetensors", b"PK\x03\x04", "not a checkpoint of this version"),
        ("weights.safetensors", b"\x80\x02}q\x00.", "not a checkpoint of this version"),
        ("instructions.safetensors", b"", "not a checkpoint of this version"),
        ("metrics.json", b"[]", "metrics.json holds a list"),
    ],
)
def test_foreign_content_with_matching_sums_is_rejected(saved, name, content, message):
    (saved / name).write_bytes(content)
    reseal(saved)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(saved)
    assert "\n" not in str(error.value)


def without_one(weights):
    del weights["head.mean.bias"]


def with_another(weights):
    weights["head.extra"] = torch.zeros(1)


def of_another_shape(weights):
    weights["head.mean.bias"] = torch.zeros(34)


def of_another_dtype(weights):
    weights["head.mean.bias"] = weights["head.mean.bias"].half()


def with_nan(weights):
    weights["head.mean.bias"] = torch.full((35,), torch.nan)


WRONG_WEIGHTS = [
    (without_one, r"missing \[head.mean.bias\]"),
    (with_another, r"unknown \[head.extra\]"),
    (of_another_shape, r"head.mean.bias is torch.float32 \(34,\), expected torch.float32 \(35,\)"),
    (of_another_dtype, "head.mean.bias is torch.float16"),
    (with_nan, "head.mean.bias holds values that are not finite"),
]


@pytest.mark.parametrize(("harm", "message"), WRONG_WEIGHTS)
def test_wrong_weights_are_not_loaded(saved, checkpoint, harm, message):
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.state_dict.items()}
    harm(weights)
    (saved / "weights.safetensors").write_bytes(safetensors.torch.save(weights))
    reseal(saved)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


@pytest.mark.parametrize(("harm", "message"), WRONG_WEIGHTS)
def test_wrong_weights_do_not_replace_a_saved_checkpoint(saved, checkpoint, harm, message):
    before = snapshot(saved.parent)
    weights = dict(checkpoint.state_dict)
    harm(weights)
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(saved, dataclasses.replace(checkpoint, state_dict=weights))
    assert snapshot(saved.parent) == before


@pytest.mark.parametrize("embedding", [np.zeros(383, np.float32), np.zeros(384), np.full(384, np.inf, np.float32)])
def test_a_wrong_instruction_embedding_is_rejected(tmp_path, checkpoint, embedding):
    with pytest.raises(CheckpointError, match="the embedding of 'go'"):
        save_checkpoint(tmp_path / "out", dataclasses.replace(checkpoint, instructions={"go": embedding}))
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_a_checkpoint_and_leaves_no_other_files(saved, checkpoint):
    newer = dataclasses.replace(checkpoint, metrics={"success": 1.0})
    assert save_checkpoint(saved, newer) == load_checkpoint(saved).id
    assert load_checkpoint(saved).metrics == {"success": 1.0}
    assert [p.name for p in saved.parent.iterdir()] == ["step1"]


def test_a_directory_that_is_not_a_checkpoint_is_not_overwritten(tmp_path, checkpoint):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "notes").write_text("more of it")
    before = snapshot(tmp_path)
    for name in ("thesis", "notes"):
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            save_checkpoint(tmp_path / name, checkpoint)
    assert snapshot(tmp_path) == before


def test_a_directory_that_cannot_be_written_is_named(tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "step1", checkpoint)
