"""A run folder of schema 1, made by make_stored_run.py, stays readable: as long as this test is kept, for ever."""

import json
import shutil
from pathlib import Path

import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.utils.schema import SCHEMA
from m2distill_training.engine.train import train
from m2distill_training.evaluation.drift import measure_drift
from m2distill_training.report import write_report
from m2distill_training.runs.run_folder import RunError, RunFolder, open_run, read_run

STORED = Path(__file__).parent / "data" / "run_schema1"


@pytest.fixture
def stored(tmp_path, monkeypatch) -> RunFolder:
    """A copy, as the current folder: the paths in data.json are relative."""
    shutil.copytree(STORED, tmp_path / "stored")
    monkeypatch.chdir(tmp_path / "stored")
    return RunFolder(Path("run"))


def test_the_stored_run_is_small_and_of_schema_1():
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 300_000
    assert json.loads((STORED / "run" / "config.json").read_text())["schema"] == 1 <= SCHEMA


def test_its_records_and_checkpoints_are_read(stored):
    config, data = read_run(stored.path)
    assert (config.preset, config.strategy, config.image_px) == ("debug", "m2distill", 8)
    texts = [dataset["instruction"] for dataset in data]
    for stage in (1, 2):
        checkpoint = load_checkpoint(stored.checkpoint(stage))
        assert set(checkpoint.instructions) == set(texts[:stage])
        assert checkpoint.spec == config.policy_spec(config.text_encoder, checkpoint.spec.text_width)
    assert [line["step"] for line in stored.metrics() if line["stage"] == 2] == list(range(1, 9))


@pytest.mark.slow
def test_it_is_reported(stored):
    write_report(Path("report.html"), [stored.path])
    page = Path("report.html").read_text()
    assert "pick up the cream cheese and place it in the basket" in page and "m2distill" in page
    assert len(measure_drift(stored.path)["entries"]) == 1


def test_it_is_resumed_with_its_own_settings_alone(stored):
    config, data = read_run(stored.path)
    with open_run(stored.path, config, data, resume=True) as run:
        assert run.checkpoint(2).is_dir()
    with (
        pytest.raises(RunError, match=r"strategy_config.image was 1.0, now 2.0"),
        open_run(stored.path, config.with_strategy("m2distill", image=2.0), data, resume=True),
    ):
        pass


def test_its_demonstrations_train_it_no_further(stored):
    config, data = read_run(stored.path)
    steps = []
    train(config, [Path(d["path"]) for d in data], stored.path, resume=True, on_step=steps.append)
    assert steps == []
