"""One decoder per stage: nothing else changes, instructions choose, and runs continue."""

import copy
import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from strategy_samples import CURRENT, SPEC, make_policy, make_samples

from m2distill_policy.checkpoint import _expected, load_checkpoint, save_checkpoint
from m2distill_policy.errors import CheckpointError, SpecError
from m2distill_policy.models import ModelConfig, Policy
from m2distill_policy.models.optimize import optimize_for_inference
from m2distill_training.cli import main
from m2distill_training.config import ConfigError, TrainConfig
from m2distill_training.engine.continue_run import learn
from m2distill_training.engine.train import train
from m2distill_training.evaluation.acting_weights import acting_id, first_decoder
from m2distill_training.presets import debug
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.base import StageContext
from m2distill_training.strategies.decoders import Decoders

TEXTS = ("pick up the milk", "open the drawer", "close it")
NUMBERS = torch.arange(40.0).reshape(5, 8) + torch.eye(5, 8)  # sentence embeddings


@pytest.fixture
def files(libero_file) -> list[Path]:
    return [libero_file(f"{i}", instruction=text, seed=i) for i, text in enumerate(TEXTS)]


def quick(strategy: str = "decoders", **changes) -> TrainConfig:
    optim = dataclasses.replace(debug().optim, budget=3, warmup_steps=1)
    return dataclasses.replace(debug().with_strategy(strategy), optim=optim, **changes)


def grown(*groups: tuple[int, int], own: bool = False) -> Policy:
    """A policy whose first decoder serves NUMBERS[:2], and one more decoder for each (first, end) of other rows."""
    policy, known = make_policy().eval(), NUMBERS[:2]
    for first, end in groups:
        policy.add_decoder(known, NUMBERS[first:end], 0, own)
        known = NUMBERS[:end]
        torch.nn.init.normal_(policy.decoders[-1].head.mean.weight)
        if own:
            for layer in (
                policy.decoders[-1].image_encoders[0].project,
                policy.decoders[-1].joint,
                policy.decoders[-1].gripper,
            ):
                torch.nn.init.normal_(layer.weight)
    return policy


def inputs_with(*texts: int):
    inputs = make_samples().inputs
    return {**inputs, "text": NUMBERS[list(texts)]}


def means(policy: Policy, *texts: int) -> torch.Tensor:
    with torch.no_grad():
        return policy(inputs_with(*texts)).dist.component_distribution.mean


@pytest.mark.parametrize("own", [False, True])
def test_each_instruction_is_served_by_the_decoder_of_its_stage(own):
    policy = grown((2, 4), (4, 5), own=own)
    assert policy.config.decoders == (2, 2, 1)
    with torch.no_grad():
        text = policy.encode_other(inputs_with(0, 1, 2, 3, 4))["text"][:, 0]
    assert policy.decoder_of(text).tolist() == [0, 0, 1, 1, 2]
    mixed = means(policy, 0, 1, 2, 3, 4)
    for number, rows in ((0, [0, 1]), (1, [2, 3]), (2, [4])):
        with torch.no_grad():
            batch = inputs_with(0, 1, 2, 3, 4)
            chosen = number if own else None
            latents = policy.encode_other(batch, chosen) | policy.encode_images(batch, chosen)
            tokens = torch.stack(tuple(latents.values()), 2)
            alone = policy.decoder_statistics(number, tokens)[1]
        assert torch.equal(mixed[rows], alone[rows]), number
    assert not torch.equal(mixed[0], mixed[2])


@pytest.mark.parametrize("own", [False, True])
def test_a_new_decoder_changes_no_bit_for_the_instructions_of_the_others(own):
    before, after = make_policy().eval(), grown((2, 3), (3, 5), own=own)
    assert torch.equal(means(before, 0, 1, 0, 1, 0), means(after, 0, 1, 0, 1, 0))
    assert torch.equal(means(grown((2, 3), own=own), 0, 1, 2, 0, 2), means(after, 0, 1, 2, 0, 2))


def test_a_copied_decoder_answers_like_its_source():
    policy = grown((2, 3))
    policy.add_decoder(NUMBERS[:3], NUMBERS[3:4], 1)
    tokens = torch.stack(tuple(policy.encode(inputs_with(3, 3, 3, 3, 3)).values()), 2)
    pairs = zip(policy.decoder_statistics(1, tokens), policy.decoder_statistics(2, tokens), strict=True)
    assert all(torch.equal(source, copy) for source, copy in pairs)


def test_an_instruction_that_cannot_be_told_apart_is_rejected():
    with pytest.raises(ValueError, match="has the text token of a known one"):
        make_policy().add_decoder(NUMBERS[:2], NUMBERS[1:2], 0)


@pytest.mark.parametrize("decoders", [(1,), (0, 2), (1, -1), (1,) * 300, (1, 10**9)])
def test_impossible_numbers_of_instructions_are_rejected(decoders):
    with pytest.raises(SpecError, match=r"model\.decoders"):
        dataclasses.replace(debug().model, decoders=decoders)


def test_the_copy_is_made_of_the_decoder_with_the_lowest_loss_on_the_new_task():
    previous = grown((2, 3))
    for part in (previous.head, previous.decoders[0].head):
        torch.nn.init.zeros_(part.mean.weight)
    batch = dataclasses.replace(make_samples(), action=torch.full((5, 4, 7), 0.5))
    torch.nn.init.constant_(previous.head.mean.bias, -1.0)
    torch.nn.init.constant_(previous.decoders[0].head.mean.bias, 0.5)
    policy = grown((2, 3))
    policy.load_state_dict(previous.state_dict())
    strategy = Decoders(None)
    strategy.context = StageContext(NUMBERS[:3], lambda: batch, new_instructions=NUMBERS[3:4])
    strategy.begin_task(policy, previous)
    assert torch.equal(policy.decoders[1].head.mean.bias, previous.decoders[0].head.mean.bias)
    learning = {name for name, x in policy.named_parameters() if x.requires_grad}
    assert learning == {f"decoders.1.{name}" for name, _ in policy.decoders[1].named_parameters()}
    strategy.loss(policy, batch)["loss"].backward()
    assert policy.decoders[1].head.mean.bias.grad.abs().sum() > 0 and batch.n_current == CURRENT


def test_tokens_are_kept_in_the_number_format_of_the_gradient_steps():
    samples = dataclasses.replace(make_samples(), windows=torch.arange(5))
    strategy = Decoders(None)
    strategy.context = StageContext(NUMBERS[:2], lambda: samples, constant_windows=5, new_instructions=NUMBERS[2:3])
    policy = make_policy()
    strategy.begin_task(policy, make_policy())
    with torch.autocast("cpu", torch.bfloat16):
        losses = [strategy.loss(policy, samples)["loss"].item() for _ in range(3)]
    assert strategy.cache.enabled and len(set(losses)) == 1


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_later_stages_leave_all_weights_of_earlier_ones(strategy, files, tmp_path):
    run = train(
        quick(strategy, augment=dataclasses.replace(debug().augment, color=0.0, crop_pad_px=0)), files, tmp_path / "run"
    )
    checkpoints = [load_checkpoint(run.checkpoint(stage)) for stage in (1, 2, 3)]
    assert [c.model_config.decoders for c in checkpoints] == [(), (1, 1), (1, 1, 1)]
    for earlier, later in itertools.pairwise(checkpoints):
        for name, x in earlier.state_dict.items():
            if name != "decoder_texts":
                assert torch.equal(later.state_dict[name], x), name
    new, source = (checkpoints[1].state_dict[f"{part}head.mean.weight"] for part in ("decoders.0.", ""))
    assert not torch.equal(new, source)
    for encoder in ("image_encoders.0.heatmaps.weight", "joint.weight", "gripper.weight"):
        own = checkpoints[1].state_dict.get(f"decoders.0.{encoder}")
        assert (own is not None) == (strategy == "networks")
        assert own is None or not torch.equal(own, checkpoints[0].state_dict[encoder])
    assert [len(c.instructions) for c in checkpoints] == [1, 2, 3]


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_a_run_of_decoders_learns_a_further_task_with_its_strategy_alone(strategy, files, tmp_path):
    run = train(quick(strategy), files[:2], tmp_path / "run")
    other = {"decoders": "networks", "networks": "decoders"}[strategy]
    for wrong in ("m2distill", other):
        with pytest.raises(RunError, match=f"which {wrong} cannot continue; use --strategy {strategy}"):
            learn(run.path, files[2], strategy=wrong)
    assert learn(run.path, files[2]) == 3
    assert load_checkpoint(run.checkpoint(3)).model_config.decoders == (1, 1, 1)


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_a_run_of_another_strategy_continues_with_decoders(strategy, files, tmp_path):
    run = train(quick("m2distill"), files[:2], tmp_path / "run")
    assert learn(run.path, files[2], strategy=strategy) == 3
    before, after = (load_checkpoint(RunFolder(run.path).checkpoint(stage)) for stage in (2, 3))
    assert after.model_config.decoders == (2, 1)
    shared = [torch.equal(after.state_dict[name], x) for name, x in before.state_dict.items()]
    assert all(shared)


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_a_checkpoint_with_decoders_is_saved_and_loaded(strategy, tmp_path, files):
    run = train(quick(strategy), files[:2], tmp_path / "run")
    checkpoint = load_checkpoint(run.checkpoint(2))
    save_checkpoint(tmp_path / "copy", dataclasses.replace(checkpoint))
    again = load_checkpoint(tmp_path / "copy").build_policy()
    assert again.config.decoders == (1, 1)
    for i, text in enumerate(TEXTS[:2]):
        token = again.text(torch.from_numpy(np.stack([checkpoint.instructions[text]])))
        assert again.decoder_of(token).tolist() == [i]


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_later_decoders_are_stored_in_half_precision_and_the_first_as_it_is(strategy, files, tmp_path, capsys):
    run = train(quick(strategy), files, tmp_path / "run")
    whole, out = run.checkpoint(3), tmp_path / "half"
    assert main.run(["export", "half", str(whole), "--out", str(out)]) == 0
    assert re.search(r"half: \d+\.\d MB instead of \d+\.\d MB", capsys.readouterr().out)
    before, after = load_checkpoint(whole).state_dict, load_checkpoint(out).state_dict
    assert before.keys() == after.keys()
    for name, x in before.items():
        assert torch.equal(after[name], x.half().float() if name.startswith("decoders.") else x), name
    weights = [folder / "weights.safetensors" for folder in (whole, out)]
    saved = sum(x.numel() * 2 for name, x in before.items() if name.startswith("decoders."))
    assert weights[0].stat().st_size - weights[1].stat().st_size == pytest.approx(saved, abs=1000)
    for source, message in ((run.checkpoint(1), "has no decoders after the first"), (whole, "exists; choose another")):
        assert main.run(["export", "half", str(source), "--out", str(out)]) != 0
        assert message in capsys.readouterr().err


def test_weights_beyond_half_precision_are_not_rounded_to_infinity(files, tmp_path):
    checkpoint = load_checkpoint(train(quick(), files[:2], tmp_path / "run").checkpoint(2))
    checkpoint.state_dict["decoders.0.head.mean.bias"][0] = 1e5
    with pytest.raises(CheckpointError, match=r"decoders\.0\.head\.mean\.bias has values beyond those of half"):
        save_checkpoint(tmp_path / "half", checkpoint, half_decoders=True)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_the_id_of_what_acts_changes_with_every_weight_that_an_instruction_depends_on(strategy, files, tmp_path):
    run = train(quick(strategy), files, tmp_path / "run")
    earlier, last = (load_checkpoint(run.checkpoint(stage)) for stage in (2, 3))
    ids = [acting_id(last, text) for text in TEXTS]
    assert len(set(ids)) == 3 and ids[:2] == [acting_id(earlier, text) for text in TEXTS[:2]]
    embeddings = torch.from_numpy(np.stack([last.instructions[text] for text in TEXTS]))
    inputs = {name: x[:3] for name, x in make_samples().inputs.items() if name not in ("images", "text")}
    views = {camera.name: torch.rand(3, 2, 3, camera.height, camera.width) for camera in last.spec.cameras}
    batch = {"images": views, "text": embeddings, **{name: x[:, :2] for name, x in inputs.items()}}

    def numbers(checkpoint):
        policy = checkpoint.build_policy().eval()
        with torch.no_grad():
            return torch.cat(
                [
                    x.flatten(1)
                    for x in vars(policy(batch).dist.component_distribution.base_dist).values()
                    if isinstance(x, torch.Tensor)
                ],
                1,
            )

    before, seen = numbers(last), set()
    for name, x in last.state_dict.items():
        other = dataclasses.replace(last, state_dict={**last.state_dict, name: x + torch.rand(x.shape)})
        after = numbers(other)
        for i, text in enumerate(TEXTS):
            changed, other_id = not torch.equal(after[i], before[i]), acting_id(other, text) != ids[i]
            assert other_id or not changed, (name, text)
            seen.add((i, changed, other_id))
    assert {(i, changed, changed) for i in range(3) for changed in (True, False)} <= seen


@pytest.mark.parametrize("strategy", ["decoders", "networks"])
def test_the_first_decoder_alone_is_the_checkpoint_before_the_others(strategy, files, tmp_path):
    run = train(quick(strategy), files, tmp_path / "run")
    first, last = (load_checkpoint(run.checkpoint(stage)) for stage in (1, 3))
    for alone in (first_decoder(first), first_decoder(last)):
        assert (alone.model_config, alone.spec) == (first.model_config, first.spec)
        assert alone.instructions.keys() == first.instructions.keys() == {TEXTS[0]}
        assert alone.state_dict.keys() == first.state_dict.keys()
        assert all(torch.equal(x, alone.state_dict[name]) for name, x in first.state_dict.items())


def test_decoders_in_the_settings_are_rejected():
    with pytest.raises(ConfigError, match=r"model\.decoders"):
        dataclasses.replace(debug(), model=dataclasses.replace(debug().model, decoders=(1, 1)))


@pytest.mark.parametrize("own", [False, True])
def test_the_expected_weights_of_many_decoders_are_those_of_the_network(own):
    config = dataclasses.replace(debug().model, decoders=(2, 1, 3, 1), own_encoders=own)
    expected = {name: (x.shape, x.dtype) for name, x in _expected(config, SPEC).items()}
    assert expected == {name: (x.shape, x.dtype) for name, x in Policy(config, SPEC).state_dict().items()}


def test_the_files_of_a_network_without_decoders_are_those_of_earlier_versions():
    text = debug().model.to_json()
    assert "decoders" not in text and "own_encoders" not in text and ModelConfig.from_json(text) == debug().model
    config = dataclasses.replace(debug().model, decoders=(1, 2))
    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("own", [False, True])
def test_acting_step_by_step_gives_the_mixtures_of_whole_windows(own):
    policy = grown((2, 3), (3, 5), own=own)
    acting = optimize_for_inference(copy.deepcopy(policy))
    batch = inputs_with(0, 2, 3, 4, 1)
    steps = []
    with torch.no_grad():
        for t in range(SPEC.history):
            now = {
                "images": {name: x[:, t : t + 1] for name, x in batch["images"].items()},
                "joint": batch["joint"][:, t : t + 1],
                "gripper": batch["gripper"][:, t : t + 1],
                "text": batch["text"],
            }
            steps.append(acting.encode_step(now))
            newest = acting.decode(torch.cat(steps, 1)).component_distribution.mean
            window = policy(batch).dist.component_distribution.mean[:, t]
            torch.testing.assert_close(newest, window, rtol=1e-5, atol=1e-5)
