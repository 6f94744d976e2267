"""The loop on the `debug` preset with the real text encoder, network and files."""

import dataclasses
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.config import ConfigError, ProtocolConfig
from m2distill_training.data.replay import choose_demos
from m2distill_training.engine.protocols import with_protocol
from m2distill_training.engine.schedule import learning_rate
from m2distill_training.engine.train import train
from m2distill_training.presets import debug, libero, preset
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder


@pytest.fixture
def files(libero_file) -> list[Path]:
    return [libero_file("a", instruction="pick up the milk"), libero_file("b", instruction="open the drawer", seed=1)]


def weights(run: Path, stage: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(RunFolder(run).checkpoint(stage)).state_dict


def assert_equal_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def interrupt_at(*moments):
    def on_step(progress):
        if (progress.stage, progress.step) in moments:
            signal.raise_signal(signal.SIGINT)

    return on_step


def test_interrupted_and_resumed_ends_in_the_very_weights_of_the_uninterrupted_run(files, tmp_path):
    whole = tmp_path / "whole"
    train(debug(), files, whole)
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(debug(), files, parts, on_step=interrupt_at((1, 3)))
    with pytest.raises(KeyboardInterrupt):
        train(debug(), files, parts, resume=True, on_step=interrupt_at((2, 8)))  # only the checkpoint is missing
    train(debug(), files, parts, resume=True)
    for stage in (1, 2):
        assert_equal_weights(weights(whole, stage), weights(parts, stage))
        assert len({load_checkpoint(RunFolder(run).checkpoint(stage)).id for run in (whole, parts)}) == 1

    def lines(run):  # all but the speed
        return [{name: x for name, x in line.items() if name != "steps_per_s"} for line in RunFolder(run).metrics()]

    assert lines(parts) == lines(whole)
    assert [(line["stage"], line["step"]) for line in lines(parts)] == [(k, s) for k in (1, 2) for s in range(1, 9)]


def test_a_crash_continues_from_the_last_saved_state(files, tmp_path):
    def crash(progress):
        if progress.step == 7:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(debug(), files[:1], tmp_path / "run", on_step=crash)
    steps = []
    train(debug(), files[:1], tmp_path / "run", resume=True, on_step=lambda p: steps.append(p.step))
    assert steps == [5, 6, 7, 8]  # debug saves every 4
    train(debug(), files[:1], tmp_path / "whole")
    assert_equal_weights(weights(tmp_path / "run", 1), weights(tmp_path / "whole", 1))


def test_the_run_folder_reports_what_was_done(files, tmp_path):
    run = train(debug(), files, tmp_path / "run")
    checkpoint = load_checkpoint(run.checkpoint(2))
    assert set(checkpoint.instructions) == {"pick up the milk", "open the drawer"}
    assert set(load_checkpoint(run.checkpoint(1)).instructions) == {"pick up the milk"}
    kept = list(choose_demos(3, 1, seed=0, task=0))
    assert checkpoint.metrics["replayed_demos"] == {"pick up the milk": kept}
    assert read_json(run.path / "stages/2/replay.json") == {"pick up the milk": kept}
    assert read_json(run.path / "config.json")["text_encoder"] == checkpoint.spec.text_encoder != "auto"
    assert not list(run.path.glob("stages/*/state.pt"))
    terms = [set(line) & {"bc", "image", "text", "extra", "policy"} for line in run.metrics()]
    assert terms == [{"bc"}] * 8 + [{"bc", "image", "text", "extra", "policy"}] * 8


def test_a_changed_setting_or_file_is_rejected_on_resume(files, tmp_path, libero_file):
    with pytest.raises(KeyboardInterrupt):
        train(debug(), files, tmp_path / "run", on_step=interrupt_at((1, 2)))
    other = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, lr=0.5))
    with pytest.raises(RunError, match=r"optim.lr was 0.0007, now 0.5"):
        train(other, files, tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="other data"):
        train(debug(), [files[0], libero_file("c", instruction="x", seed=3)], tmp_path / "run", resume=True)
    with pytest.raises(RunError, match="add --resume"):
        train(debug(), files, tmp_path / "run")
    with pytest.raises(RunError, match="no run to resume"):
        train(debug(), files, tmp_path / "nothing", resume=True)


def test_two_processes_cannot_train_in_one_folder(files, tmp_path):
    def second(progress):
        with pytest.raises(RunError, match="by another process"):
            train(debug(), files, tmp_path / "run", resume=True)

    one = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
    train(one, files[:1], tmp_path / "run", on_step=second)


def test_divergence_stops_with_the_reason_and_keeps_the_saved_state(files, tmp_path):
    wild = dataclasses.replace(
        debug(),
        optim=dataclasses.replace(debug().optim, lr=1e30, min_lr=1e30, warmup_steps=5, ema_decay=0.0, budget=60),
    )
    with pytest.raises(RunError, match="training diverged at gradient step"):
        train(wild, files[:1], tmp_path / "run")
    assert not RunFolder(tmp_path / "run").checkpoint(1).exists()


def test_weights_that_an_update_has_spoiled_are_not_saved(files, tmp_path):
    """The gradient step whose update overflows has itself a finite loss and gradient."""
    wild = dataclasses.replace(
        debug(),
        save_every=1,
        optim=dataclasses.replace(debug().optim, lr=3e38, min_lr=3e38, warmup_steps=0, weight_decay=1e9, ema_decay=0.0),
    )
    with pytest.raises(RunError, match="diverged at gradient step 1 of stage 1: weight .* is not finite after it"):
        train(wild, files[:1], tmp_path / "run")
    assert RunFolder(tmp_path / "run").load_state(1) is None


def test_a_control_run_starts_from_another_run_s_first_stage(files, tmp_path):
    first = train(debug(), files, tmp_path / "m2distill")
    finetune = debug().with_strategy("finetune")
    stages = []
    train(
        finetune,
        files,
        tmp_path / "control",
        start_from=first.checkpoint(1),
        on_step=lambda p: stages.append(p.stage),
    )
    assert set(stages) == {2}
    assert_equal_weights(weights(tmp_path / "control", 1), weights(tmp_path / "m2distill", 1))
    train(finetune, files, tmp_path / "alone")
    assert_equal_weights(weights(tmp_path / "control", 2), weights(tmp_path / "alone", 2))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(
            weights(tmp_path / "control", 2).values(), weights(tmp_path / "m2distill", 2).values(), strict=True
        )
    )
    with pytest.raises(RunError, match="the first stage here is"):
        train(finetune, files[::-1], tmp_path / "wrong", start_from=first.checkpoint(1))


def test_a_start_is_rejected_unless_it_has_learned_what_the_first_stage_would(files, tmp_path, libero_file):
    """Else it might know what is held out here, or be recorded as learned from another file."""
    joint = ProtocolConfig("custom", stage_tasks=(2,), stage_demos=())
    one = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1))
    start = train(one, files, tmp_path / "one").checkpoint(1)
    both = train(dataclasses.replace(one, protocol=joint), files, tmp_path / "both").checkpoint(1)

    def refused(why, config=one, data=files[:1], start_from=start):
        with pytest.raises(RunError, match=why):
            train(config, data, tmp_path / "run", start_from=start_from)
        assert not (tmp_path / "run").exists()

    held_out = dataclasses.replace(one.replay, held_out_demos=1)
    refused(r"seed 0 \(here: 5\)", dataclasses.replace(one, seed=5))
    refused(r"replay.held_out_demos 0 \(here: 1\)", dataclasses.replace(one, replay=held_out))
    refused(
        r"protocol.stage_demos \[\] \(here: \[2\]\)",
        dataclasses.replace(one, protocol=ProtocolConfig("custom", stage_tasks=(), stage_demos=(2,))),
    )
    refused("other files", data=[libero_file("other", instruction="pick up the milk", seed=7)])
    refused("order of tasks", dataclasses.replace(one, protocol=joint), files[::-1], both)
    refused(
        r"stage 2 \(here: 1\)",
        dataclasses.replace(one, protocol=joint),
        files,
        start.parents[1] / "2" / "checkpoint",
    )
    twice, less = (
        dataclasses.replace(one.with_strategy("multitask"), protocol=ProtocolConfig("custom", (), demos))
        for demos in ((2, 2), (2, 1))
    )
    refused(
        r"protocol.stage_demos \[2, 2\] \(here: \[2, 1\]\)",
        less,
        files,
        train(twice, files, tmp_path / "all").checkpoint(1),
    )
    copy = Path(shutil.copytree(start, tmp_path / "copy"))
    refused("is not in the run folder that it was learned in", start_from=copy)


def test_a_joint_first_stage_learns_several_tasks(files, tmp_path, libero_file):
    config = dataclasses.replace(debug(), protocol=ProtocolConfig("custom", stage_tasks=(2, 1), stage_demos=()))
    run = train(config, [*files, libero_file("c", instruction="close it", seed=2)], tmp_path / "run")
    assert len(load_checkpoint(run.checkpoint(1)).instructions) == 2
    assert len(load_checkpoint(run.checkpoint(2)).instructions) == 3
    assert not run.checkpoint(3).exists()
    steps = [load_checkpoint(run.checkpoint(k)).metrics["gradient_steps"] for k in (1, 2)]
    assert steps == [2 * debug().optim.budget, debug().optim.budget]  # a budget of gradient steps is one per task


def test_averaged_weights_are_what_is_saved(files, tmp_path):
    """With a budget of one step the average is 1/11 of the way back to the initial weights, whatever the decay."""

    def after_one_step(decay: float, name: str) -> dict[str, torch.Tensor]:
        config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1, ema_decay=decay))
        train(config, files[:1], tmp_path / name)
        return weights(tmp_path / name, 1)

    last, averaged = after_one_step(0.0, "last"), after_one_step(0.99, "averaged")
    moved = [(last[name] - averaged[name]).abs().max().item() for name in last]
    step = debug().optim.lr / debug().optim.warmup_steps  # Adam's first step has length lr
    assert max(moved) == pytest.approx(step / 11, rel=0.05)


def test_learning_rate_by_hand():
    o = dataclasses.replace(debug().optim, lr=1.0, min_lr=0.1, warmup_steps=4, budget=100)
    assert [learning_rate(o, s, 100, 7) for s in (0, 3)] == [0.25, 1.0]
    assert learning_rate(o, 50, 100, 7) == pytest.approx(0.55)
    assert learning_rate(o, 100, 100, 7) == pytest.approx(0.1)
    later = dataclasses.replace(o, later_lr=0.5)
    for step in (0, 3, 50, 100):
        assert learning_rate(later, step, 100, 7, stage=1) == learning_rate(o, step, 100, 7)
        assert learning_rate(later, step, 100, 7, stage=2) == learning_rate(o, step, 100, 7) / 2


def test_later_stages_learn_at_a_rate_of_their_own(files, tmp_path):
    config = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, later_lr=0.25))
    train(config, files[:2], tmp_path / "run")
    rates = {1: [], 2: []}
    for line in RunFolder(tmp_path / "run").metrics():
        rates[line["stage"]].append(line["lr"])
    assert len(rates[1]) > 3 and rates[2] == [lr / 4 for lr in rates[1]]


def test_learning_rate_of_an_epoch_budget_equals_torch_s_cosine():
    o = libero().optim
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=o.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=o.budget, eta_min=o.min_lr)
    for epoch in range(o.budget):
        for step in (epoch * 7, epoch * 7 + 6):
            assert math.isclose(learning_rate(o, step, 350, 7), schedule.get_last_lr()[0], rel_tol=1e-9)
        optimiser.step()
        schedule.step()


def test_repeated_instructions_and_unknown_names_are_rejected(files, tmp_path):
    with pytest.raises(RunError, match="holds the instruction 'pick up the milk' like another"):
        train(debug(), [files[0], files[0]], tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        preset("smal")
    with pytest.raises(ConfigError, match="did you mean 'm2distill'"):
        debug().with_strategy("m2distil")


@pytest.mark.parametrize("name", ["libero", "small", "debug"])
def test_presets_survive_json(name):
    config = preset(name)
    assert type(config).from_json(config.to_json()) == config


def test_base6_plus4_from_ten_files(libero_file, tmp_path):
    """Six tasks jointly with 50 demos each, then four stages of one task with 10, 5 kept of every earlier task."""
    names = [f"task {i}" for i in range(10)]
    ten = [libero_file(f"{i}", instruction=name, seed=i, demos=50, steps=2, size_px=16) for i, name in enumerate(names)]
    config = with_protocol(dataclasses.replace(debug(), save_every=1000), "base6_plus4")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, budget=1))
    run = train(config, ten, tmp_path / "run")
    assert [len(load_checkpoint(run.checkpoint(k)).instructions) for k in range(1, 6)] == [6, 7, 8, 9, 10]
    assert [max(line["step"] for line in run.metrics() if line["stage"] == k) for k in range(1, 6)] == [6, 1, 1, 1, 1]
    for k in range(2, 6):
        kept = read_json(tmp_path / "run" / "stages" / str(k) / "replay.json")
        assert {name: len(demos) for name, demos in kept.items()} == dict.fromkeys(names[: 4 + k], 5)
    learned = choose_demos(50, 10, config.seed, 6)  # of the first task that is learned alone
    assert set(kept["task 6"]) <= set(learned)
