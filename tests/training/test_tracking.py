"""What TensorBoard and experiment trackers receive, on one axis of gradient steps."""

import json
import struct
import time
from pathlib import Path

import pytest

from m2distill_policy.errors import UserError
from m2distill_training.cli import main
from m2distill_training.runs import tracking
from m2distill_training.runs.records import read_json
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.runs.tensorboard import drift_points, log_points, log_values, success_points

LINES = [{"stage": stage, "step": step, "loss": 1.0} for stage in (1, 2) for step in (2, 4)]


def test_the_global_step_counts_the_gradient_steps_of_all_stages():
    assert [step for step, _ in log_points(LINES)] == [2, 4, 6, 8]


def test_gradient_shares_are_those_of_the_weighted_norms():
    """bc 2 x 1, image 1 x 4, text 3 x 1 / 3: 2, 4 and 1 of 7; a norm without a multiplier is not in the loss."""
    norms = {"grad_norm": 9.0, "grad_norm_bc": 2.0, "grad_norm_image": 1.0, "grad_norm_text": 3.0, "grad_norm_x": 1.0}
    values = log_values({"stage": 1, "step": 1, **norms, "multiplier_image": 4.0, "multiplier_text": 1 / 3})
    shares = {name: x for name, x in values.items() if name.startswith("gradient_share/")}
    expected = {"gradient_share/bc": 2 / 7, "gradient_share/image": 4 / 7, "gradient_share/text": 1 / 7}
    assert shares == pytest.approx(expected)


def test_success_and_drift_are_at_the_end_of_their_stage():
    rates = [[0.9], [0.5, 0.7]]
    stages = [{"tasks": [{"success_rate": x} for x in row]} for row in rates]
    metrics = {"fwt": 0.8, "nbt": 0.4, "auc": 0.75}
    evaluation = {"matrix": [[0.9, None], [0.5, 0.7]], "stages": stages, "metrics": metrics}
    assert success_points(evaluation, LINES) == [
        (4, {"success/mean": 0.9, "success/stage_1": 0.9}),
        (
            8,
            {
                "success/mean": pytest.approx(0.6),
                "success/stage_1": 0.5,
                "success/stage_2": 0.7,
                **{f"metrics/{name}": x for name, x in metrics.items()},
            },
        ),
    ]
    entries = [{"stage": 2, "policy_kl": x, "relative": {"image": 2 * x}} for x in (1.0, 3.0)]
    assert drift_points(entries, LINES) == [(8, {"drift/policy_kl": 2.0, "drift/image": 4.0})]


def wandb_records(path: Path) -> list[bytes]:
    """The records of wandb's file: seven bytes, then LevelDB's log format in blocks of 32 KiB."""
    content, at, found, parts = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(parts)
            parts = b""
    return found


def wandb_history(run: Path) -> list[dict]:
    """The logged values in the files that wandb wrote without a network."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = [
        Record.FromString(data)
        for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))
        for data in wandb_records(path)
    ]
    rows = [
        {"/".join(x.nested_key) or x.key: json.loads(x.value_json) for x in record.history.item} for record in records
    ]
    return [row for row in rows if row]


def wait_for_history(run: Path, count: int) -> list[dict]:
    """The history when it has `count` rows: another process of wandb writes the file."""
    deadline = time.monotonic() + 20
    while len(rows := wandb_history(run)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return rows


@pytest.mark.slow
def test_wandb_receives_every_line_once_without_a_network(libero_file, tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "run"
    words = ["train", "--preset", "debug", "--budget", "3", "--data", str(libero_file()), "--out", str(out)]
    assert main.run([*words, "--track", "wandb"]) == 0
    lines = RunFolder(out).metrics()
    shown = wait_for_history(out, len(lines))
    assert [x["global_step"] for x in shown] == [line["step"] for line in lines]
    assert [x["loss"] for x in shown] == pytest.approx([line["loss"] for line in lines])
    assert read_json(out / tracking.RECORD)["wandb"]["sent"] == 3
    again = tracking.RunTracking(out, "wandb")
    again.send([(3, {"success/mean": 0.5})])
    again.close()
    shown = wait_for_history(out, len(lines) + 1)
    assert [x.get("success/mean") for x in shown][-1] == 0.5
    assert len(shown) == len(lines) + 1  # nothing was sent twice
    assert "warning" not in capsys.readouterr().err


def test_mlflow_receives_the_log(libero_file, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "run"
    words = ["train", "--preset", "debug", "--budget", "2", "--data", str(libero_file()), "--out", str(out)]
    assert main.run([*words, "--track", "mlflow"]) == 0
    run = read_json(out / tracking.RECORD)["mlflow"]["id"]
    history = mlflow.MlflowClient(tracking_uri=(out / "mlflow").as_uri()).get_metric_history(run, "loss")
    assert [(x.step, x.value) for x in history] == [(line["step"], line["loss"]) for line in RunFolder(out).metrics()]


def test_trackio_receives_the_log_on_this_machine(libero_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    out = tmp_path / "run"
    words = ["train", "--preset", "debug", "--budget", "2", "--data", str(libero_file()), "--out", str(out)]
    assert main.run([*words, "--track", "trackio"]) == 0
    lines = RunFolder(out).metrics()
    again = tracking.RunTracking(out, "trackio")
    again.send([(2, {"success/mean": 0.5})])
    again.close()
    logged = SQLiteStorage.get_logs(tracking.PROJECT, "run")
    assert [x["step"] for x in logged] == [*(line["step"] for line in lines), 2]  # nothing was sent twice
    assert [x["loss"] for x in logged[:-1]] == pytest.approx([line["loss"] for line in lines])
    assert logged[-1]["success/mean"] == 0.5


def test_a_tracker_that_fails_does_not_stop_the_training(libero_file, tmp_path, monkeypatch, capsys):
    class Broken:
        def __init__(self, *arguments):
            raise ConnectionError("no route to host")

    monkeypatch.setitem(tracking.TRACKERS, "wandb", Broken)
    out = tmp_path / "run"
    words = ["train", "--preset", "debug", "--budget", "2", "--data", str(libero_file()), "--out", str(out)]
    assert main.run([*words, "--track", "wandb"]) == 0
    assert RunFolder(out).checkpoint(1).is_dir()
    assert capsys.readouterr().err.count("wandb receives nothing more: no route to host") == 1


def test_an_unknown_tracker_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="unknown tracker 'wandbb'; did you mean 'wandb'"):
        tracking.RunTracking(tmp_path, "wandbb")
