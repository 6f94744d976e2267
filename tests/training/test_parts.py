"""A batch learned in parts, in one process or in two, gives the weights of the whole, up to the order of sums."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder


def weights(run: Path, stage: int = 2) -> dict[str, torch.Tensor]:
    return load_checkpoint(RunFolder(run).checkpoint(stage)).state_dict


def config(strategy="m2distill", accumulate=1):
    base = dataclasses.replace(debug().with_strategy(strategy), model=dataclasses.replace(debug().model, dropout=0.0))
    return dataclasses.replace(base, optim=dataclasses.replace(base.optim, accumulate=accumulate))


def assert_close(a, b, atol=2e-5):
    """Sums in another order: float32 has 7 digits, 16 steps of AdamW may lose some of them.

    AdamW moves a weight by the sign of its gradient, even if that is rounding noise. A bias before a softmax has no
    other gradient.
    """
    for name, x in a.items():
        if not name.endswith("heatmaps.bias"):
            torch.testing.assert_close(x, b[name], rtol=1e-3, atol=atol, msg=name)
            assert (x - b[name]).abs().mean() < max(5e-5, atol / 5), name


# The gradient of a distillation term is rounding noise in the first steps, while student and teacher are almost equal.
DISTILLED = 5e-4


def assert_same_balance(one: list[dict], other: list[dict]) -> None:
    """The measured norms and multipliers of two runs agree, and there are some."""
    assert any("multiplier_policy" in line for line in one)
    for a, b in zip(one, other, strict=True):
        for name in a:
            if name.startswith(("multiplier_", "grad_norm_")):
                assert b[name] == pytest.approx(a[name], rel=1e-2), (name, a["step"])


def test_every_part_draws_for_the_whole_batch_and_takes_its_rows():
    whole = SampleRng.of_whole_batch(3, 6)
    parts = [SampleRng(3, torch.arange(i, 6, 2), 6) for i in range(2)]
    for draw in (lambda d: d.uniform(4), lambda d: d.normal(2, 3), lambda d: d.integers(9, 2)):
        all_rows, (even, odd) = draw(whole), (draw(d) for d in parts)
        assert torch.equal(all_rows[0::2], even)
        assert torch.equal(all_rows[1::2], odd)


@pytest.mark.parametrize("strategy", ["m2distill", "recall", "stored", "latent_perturb", "packnet", "ewc"])
def test_accumulated_gradients_give_the_same_weights(libero_file, tmp_path, strategy):
    files = [libero_file(name, seed=i, instruction=f"task {name}") for i, name in enumerate("ab")]
    for parts in (1, 2):
        train(config(strategy, parts), files, tmp_path / str(parts))
    distills = strategy not in ("packnet", "ewc")
    assert_close(weights(tmp_path / "1"), weights(tmp_path / "2"), *([DISTILLED] if distills else []))
    if distills:
        assert_same_balance(*(RunFolder(tmp_path / name).metrics() for name in "12"))


def test_a_batch_that_does_not_divide_is_rejected(libero_file, tmp_path):
    with pytest.raises(RunError, match=r"optim.batch_size is 4, which 3 parts .* choose a multiple of 3"):
        train(config(accumulate=3), [libero_file()], tmp_path / "run")


def torchrun(processes: int, *arguments: str) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "-m",
        "m2distill_training",
        "train",
        "--preset",
        "debug",
        "--model.dropout",
        "0",
        "--device",
        "cpu",
        *arguments,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("strategy", ["m2distill", "stored"])
def test_two_processes_learn_what_one_learns(strategy, libero_file, tmp_path):
    files = [libero_file(name, seed=i, instruction=f"task {name}") for i, name in enumerate("ab")]
    process = torchrun(2, "--strategy", strategy, "--data", *map(str, files), "--out", str(tmp_path / "two"))
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert output.count("done:") == 1  # the leader alone speaks
    train(config(strategy), files, tmp_path / "one")
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"), DISTILLED)
    lines = [RunFolder(tmp_path / name).metrics() for name in ("one", "two")]
    assert [(x["stage"], x["step"]) for x in lines[0]] == [(x["stage"], x["step"]) for x in lines[1]]
    assert_same_balance(*lines)
    assert lines[1][0]["loss"] == pytest.approx(lines[0][0]["loss"], rel=1e-5)
    assert read_json(tmp_path / "two" / "environment.json")[0]["processes"] == 2


def test_two_processes_stop_together_and_continue_as_one(libero_file, tmp_path):
    """Ctrl-C in torchrun's terminal; then the run is resumed by a single process."""
    files = [libero_file(name, seed=i, instruction=f"task {name}") for i, name in enumerate("ab")]
    process = torchrun(2, "--data", *map(str, files), "--out", str(tmp_path / "run"), "--optim.budget", "4000")
    for line in process.stdout:
        if "it/s" in line:
            process.send_signal(signal.SIGINT)
            break
    output, _ = process.communicate(timeout=180)
    run = RunFolder(tmp_path / "run")
    assert run.load_state(1)["step"] > 0, output
    assert "Traceback" not in output.split("m2distill: interrupted")[0]
    saved = run.load_state(1)["step"]
    assert run.metrics()[-1]["step"] == saved
    base = config()
    longer = dataclasses.replace(base, optim=dataclasses.replace(base.optim, budget=4000))
    stop_at = saved + 3

    def on_step(progress):
        if progress.step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(longer, files, tmp_path / "run", resume=True, on_step=on_step)
    assert run.metrics()[-1]["step"] == stop_at
