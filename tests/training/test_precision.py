"""Precision "auto": bfloat16 where the processor or GPU has instructions for it, and recorded in the run folder."""

import dataclasses
import json

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.bench.steps import Steps
from m2distill_training.bench.train import demo_subset
from m2distill_training.config import ConfigError
from m2distill_training.engine import train as engine
from m2distill_training.engine import trainer
from m2distill_training.engine.train import train
from m2distill_training.presets import PRESETS, debug, libero, small
from m2distill_training.runs.records import read_json
from m2distill_training.utils.device import fast_precision

SHORT = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=6))  # saves after 4 of 6 steps
AUTO = dataclasses.replace(SHORT, precision="auto")


@pytest.fixture
def processor(monkeypatch):
    """processor("bfloat16"): trainings begin on a processor on which this precision is the fast one."""
    return lambda precision: monkeypatch.setattr(engine, "fast_precision", lambda device: precision)


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_processor_with_instructions_for_bfloat16_uses_it(name, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True, name: True})
    assert fast_precision("cpu") == "bfloat16"


def test_a_processor_without_them_uses_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True, "avx512_bf16": False})
    assert fast_precision("cpu") == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_uses_bfloat16_only_if_it_is_not_emulated(native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert fast_precision("cuda:0") == ("bfloat16" if native else "float32")


def test_presets_for_use_leave_it_to_the_processor():
    assert [preset().precision for preset in (libero, small, debug)] == ["auto", "auto", "float32"]
    for preset in PRESETS.values():
        with pytest.raises(ConfigError, match="unknown precision 'float16'"):
            dataclasses.replace(preset(), precision="float16")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_run_records_and_uses_what_is_fast(precision, libero_file, tmp_path, processor):
    processor(precision)
    files = [libero_file()]
    found = train(AUTO, files, tmp_path / "auto")
    assert read_json(found.path / "config.json")["precision"] == precision
    given = train(dataclasses.replace(SHORT, precision=precision), files, tmp_path / "given")
    assert load_checkpoint(found.checkpoint(1)).id == load_checkpoint(given.checkpoint(1)).id
    other = train(dataclasses.replace(SHORT, precision="float32"), files, tmp_path / "other")
    same = load_checkpoint(other.checkpoint(1)).id == load_checkpoint(found.checkpoint(1)).id
    assert same == (precision == "float32")  # the precision acts


def test_a_run_that_another_processor_resumes_keeps_its_precision(libero_file, tmp_path, processor):
    processor("bfloat16")
    files = [libero_file()]
    whole = train(AUTO, files, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(AUTO, files, tmp_path / "run", stop=lambda: True)
    processor("float32")
    run = train(AUTO, files, tmp_path / "run", resume=True)
    assert json.loads((run.path / "config.json").read_text())["precision"] == "bfloat16"
    assert load_checkpoint(run.checkpoint(1)).id == load_checkpoint(whole.checkpoint(1)).id


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_trainer_without_a_run_uses_what_is_fast(precision, monkeypatch):
    """As in `bench distill`, whose configuration is that of a preset."""
    monkeypatch.setattr(trainer, "fast_precision", lambda device: precision)
    given = dataclasses.replace(SHORT, precision=precision)
    assert Steps(AUTO, demo_subset(AUTO, 0)).step() == Steps(given, demo_subset(given, 0)).step()
