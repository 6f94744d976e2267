"""Every record of a run has a schema version, and one of a newer version is rejected by its place and the remedy."""

import hashlib
import io
import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.spec import read_spec
from m2distill_policy.utils.schema import NewerSchema, check_label, with_labels, with_schema, without_schema
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.runs.records import append_line, read_json, read_lines, write_json, write_lines
from m2distill_training.runs.run_folder import RunFolder, read_run
from m2distill_training.strategies.memory import load_memory, save_memory

NEWER = r"{}: made by a newer m2distill \(schema 9, this version reads up to 1\); update it"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, write_libero):
    folder = tmp_path_factory.mktemp("trained")
    files = [write_libero(folder / f"{text}.hdf5", instruction=text) for text in ("one", "two")]
    return train(debug(), files, folder / "run")


@pytest.fixture
def run(trained, tmp_path) -> RunFolder:
    shutil.copytree(trained.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def newer(path) -> None:
    """Let a record, or each of its lines, have schema 9."""
    content = path.read_text()
    assert '"schema": 1' in content
    path.write_text(content.replace('"schema": 1', '"schema": 9'))


def reseal(checkpoint) -> None:
    names = [line.split("  ")[1] for line in (checkpoint / "SHA256SUMS").read_text().splitlines()]
    sums = [f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (checkpoint / "SHA256SUMS").write_text("".join(sums))


def test_every_record_of_a_run_has_a_version(run):
    records = [path for path in run.path.rglob("*.json*") if path.suffix in (".json", ".jsonl")]
    assert {
        "config.json",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "replay.json",
        "spec.json",
        "task.json",
    } <= {path.name for path in records}
    for path in records:
        texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        assert [json.loads(text).get("schema") for text in texts] == [1] * len(texts), path


def test_a_newer_record_of_a_run_is_named(run):
    dataset = run.data()[0]
    for path, read in (
        (
            run.memory(0, "replay") / "task.json",
            lambda: load_task_memory(run.memory(0, "replay"), dataset, CAMERA_NAMES),
        ),
        (run.path / "metrics.jsonl", run.metrics),
        (run.path / "environment.json", lambda: read_json(run.path / "environment.json")),
        (run.path / "config.json", lambda: read_run(run.path)),
        (run.path / "data.json", run.data),
    ):
        newer(path)
        with pytest.raises(UserError, match=NEWER.format(path.name)):
            read()
        path.write_text(path.read_text().replace('"schema": 9', '"schema": 1'))
        read()


@pytest.mark.parametrize("name", ["spec.json", "model.json", "metrics.json"])
def test_a_newer_checkpoint_is_named(name, run):
    checkpoint = run.checkpoint(1)
    newer(checkpoint / name)
    reseal(checkpoint)
    with pytest.raises(UserError, match=NEWER.format("checkpoint")):
        load_checkpoint(checkpoint)
    if name == "spec.json":
        with pytest.raises(UserError, match=NEWER.format("checkpoint")):
            read_spec(checkpoint)


def test_a_newer_state_of_a_stage_is_named(run):
    run.save_state(1, {"step": 3})
    assert run.load_state(1) == {"step": 3}
    buffer = io.BytesIO()
    torch.save({"schema": 9, "step": 3}, buffer)
    content = buffer.getvalue()
    run.state(1).write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    with pytest.raises(NewerSchema, match=NEWER.format("state.pt")):
        run.load_state(1)


def test_a_newer_memory_of_a_strategy_is_named(tmp_path):
    path = tmp_path / "memory.safetensors"
    save_memory(path, {"a": torch.ones(2)})
    assert load_memory(path)["a"].tolist() == [1, 1]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"schema": "1"}
    save_file(load_file(path), path, {"schema": "9"})
    with pytest.raises(NewerSchema, match=NEWER.format("memory.safetensors")):
        load_memory(path)
    save_file(load_file(path), path)  # without a version: 1
    load_memory(path)


@pytest.mark.parametrize("content", [{"a": 1}, [], [{"a": 1}], {}])
def test_what_is_written_is_read_without_the_version(content, tmp_path):
    write_json(tmp_path / "record.json", content)
    assert read_json(tmp_path / "record.json") == content
    assert without_schema(with_schema(content)) == content
    (tmp_path / "record.json").write_text(json.dumps(content))  # as versions before wrote it
    assert read_json(tmp_path / "record.json") == content


def test_lines_have_a_version_each(tmp_path):
    path = tmp_path / "lines.jsonl"
    write_lines(path, [{"a": 1}])
    append_line(path, {"a": 2})
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    assert path.read_text().count('"schema": 1') == 2
    newer(path)
    with pytest.raises(NewerSchema, match=NEWER.format("lines.jsonl")):
        read_lines(path)


def test_labels_of_a_newer_recorder_are_named():
    assert with_labels({"operator": "Ada"}) == {"schema": "1", "operator": "Ada"}
    check_label(with_labels({}), "bag")
    check_label({}, "bag")
    with pytest.raises(NewerSchema, match=NEWER.format("bag")):
        check_label({"schema": "9"}, "bag")
