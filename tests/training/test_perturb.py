"""Strategies that ask the teacher about perturbed observations."""

import dataclasses

import pytest
import torch
from strategy_samples import CURRENT, INSTRUCTIONS, REPLAYED, make_policy, make_samples, second_stage, strategy_with

from m2distill_training.config import ConfigError
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss
from m2distill_training.presets import small
from m2distill_training.strategies.base import StageContext
from m2distill_training.strategies.configs import PerturbConfig
from m2distill_training.strategies.m2distill import rows_of
from m2distill_training.strategies.perturb import Perturbation

TOTAL = CURRENT + REPLAYED
CONTEXT = StageContext(INSTRUCTIONS, make_samples)


def seen(seed: int = 0, **values):
    """The samples, and what Perturbation makes of them. The context's first batch has other states."""
    samples = dataclasses.replace(make_samples(), rng=SampleRng.of_whole_batch(seed, TOTAL))
    first = make_samples()
    first.inputs["joint"], first.inputs["gripper"] = first.inputs["joint"] + 100, first.inputs["gripper"] + 100
    context = dataclasses.replace(CONTEXT, first_batch=lambda: first)
    return samples, first, Perturbation(PerturbConfig(**values), context)(samples)


def offsets_of(image: torch.Tensor, moved: torch.Tensor, pad: int) -> list[tuple[int, int]]:
    """All shifts, in rows and columns, by which `image` (T, C, H, W) with a replicated border becomes `moved`."""
    bordered = torch.nn.functional.pad(image, (pad,) * 4, mode="replicate")
    H, W = image.shape[-2:]
    return [
        (row - pad, column - pad)
        for row in range(2 * pad + 1)
        for column in range(2 * pad + 1)
        if torch.equal(bordered[..., row : row + H, column : column + W], moved)
    ]


def test_each_view_is_shifted_by_a_distance_of_its_own():
    samples, _, shown = seen(shift=0.125)
    found: dict[str, list[tuple[int, int]]] = {}
    for name, x in samples.inputs["images"].items():
        torch.testing.assert_close(shown.inputs["images"][name][:TOTAL], x, rtol=0, atol=0)
        pairs = zip(x, shown.inputs["images"][name][TOTAL:], strict=True)
        found[name] = [offset for image, moved in pairs for offset in offsets_of(image, moved, 2)]
    first, second = found.values()
    assert len(first) == len(second) == TOTAL and first != second and len(set(first + second)) > 4
    drawn = torch.tensor([(x, y) for seed in range(40) for x, y in shifts(seed)])
    assert drawn.min() == -2 and drawn.max() == 2 and abs(drawn.float().mean()) < 0.2


def shifts(seed: int) -> list[tuple[int, int]]:
    samples, _, shown = seen(seed, shift=0.125)
    name, x = next(iter(samples.inputs["images"].items()))
    moved = shown.inputs["images"][name][TOTAL:]
    return [offsets_of(x[i], moved[i], 2)[0] for i in range(TOTAL)]


def test_instructions_are_those_of_earlier_tasks_and_a_replayed_sample_may_keep_its_own():
    known = {tuple(text.tolist()) for text in INSTRUCTIONS}
    for share, kept in ((0.0, 0), (1.0, REPLAYED)):
        samples, _, shown = seen(own_instruction=share)
        again = shown.inputs["text"][TOTAL:]
        torch.testing.assert_close(shown.inputs["text"][:TOTAL], samples.inputs["text"], rtol=0, atol=0)
        own = [torch.equal(x, y) for x, y in zip(again, samples.inputs["text"], strict=True)]
        assert own == [False] * CURRENT + [True] * kept + [False] * (REPLAYED - kept)
        assert all(tuple(again[i].tolist()) in known for i, is_own in enumerate(own) if not is_own)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_joints_and_gripper_may_be_those_of_one_other_sample(share):
    moved = 0
    for seed in range(60):
        samples, first, shown = seen(seed, recombine=share)
        for i in range(TOTAL):
            joint, gripper = (shown.inputs[name][TOTAL + i] for name in ("joint", "gripper"))
            if torch.equal(joint, samples.inputs["joint"][i]):
                assert torch.equal(gripper, samples.inputs["gripper"][i])
                continue
            moved += 1
            [donor] = [k for k in range(TOTAL) if torch.equal(joint, first.inputs["joint"][k])]
            assert torch.equal(gripper, first.inputs["gripper"][donor])
    assert moved / (60 * TOTAL) == pytest.approx(share, abs=0.1)


def test_without_perturbation_it_is_recall():
    """The same draws of instructions, the same losses."""
    student, teacher = make_policy(1), make_policy(0)
    values = {"policy_on": "relabelled", "kl_samples": 2, "image": 0.0, "text": 0.0, "extra": 0.0}
    losses = {}
    for name, own in (("recall", {}), ("perturb", {"shift": 0.0, "recombine": 0.0, "own_instruction": 0.0})):
        strategy = strategy_with(name, **values, **own)
        strategy.begin_task(student, teacher)
        shown = strategy.distillation_samples(make_samples())
        losses[name] = shown.inputs
    for part in ("joint", "gripper", "text"):
        torch.testing.assert_close(losses["perturb"][part], losses["recall"][part], rtol=0, atol=0)
    torch.testing.assert_close(losses["perturb"]["images"], losses["recall"]["images"], rtol=0, atol=0)


def test_a_part_of_the_batch_is_perturbed_as_in_the_whole():
    whole = make_samples()
    perturbation = Perturbation(PerturbConfig(), CONTEXT)
    shown = perturbation(whole)
    rows = torch.tensor([1, 4])
    part = dataclasses.replace(
        whole,
        inputs=rows_of(whole.inputs, rows),
        action=whole.action[rows],
        n_current=1,
        rng=SampleRng(0, rows, TOTAL),
    )
    expected = rows_of(shown.inputs, torch.cat([rows, TOTAL + rows]))
    torch.testing.assert_close(dict(perturbation(part).inputs), dict(expected), rtol=0, atol=0)


@pytest.fixture
def batches(libero_file):
    return second_stage(libero_file)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_latent_perturb_has_the_losses_of_perturb_with_frozen_encoders(norm, batches):
    teacher, student = make_policy(0, norm), make_policy(1, norm)
    student.image_encoders.load_state_dict(teacher.image_encoders.state_dict())
    losses = {}
    for name in ("latent_perturb", "perturb"):
        strategy = strategy_with(name, on="both", policy_on="replay")
        strategy.context = StageContext(INSTRUCTIONS, make_samples, batches.replay)
        strategy.begin_task(student.train() if name == "latent_perturb" else student, teacher)
        policy = student if name == "latent_perturb" else student.eval()
        losses[name] = strategy.loss(policy, batches.samples(0))
    for term in ("bc", "text", "extra", "policy"):
        torch.testing.assert_close(
            losses["latent_perturb"][term], losses["perturb"][term], rtol=1e-4, atol=1e-5, msg=term
        )
    losses["latent_perturb"]["loss"].backward()
    assert all(p.grad is None for p in student.image_encoders.parameters())


def test_without_cloning_of_replayed_samples_their_actions_do_not_matter(batches):
    student, teacher, samples = make_policy(1).eval(), make_policy(0), batches.samples(0)
    student.image_encoders.load_state_dict(teacher.image_encoders.state_dict())
    changed = dataclasses.replace(samples, action=samples.action.clone())
    changed.action[samples.n_current :] = 0.7
    for clones in (True, False):
        strategy = strategy_with("latent_perturb", clone_replay=clones)
        strategy.context = StageContext(INSTRUCTIONS, make_samples, batches.replay)
        strategy.begin_task(student, teacher)
        bc = [strategy.loss(student, x)["bc"].item() for x in (batches.samples(0), changed)]
        assert (bc[0] == bc[1]) == (not clones)
    current = rows_of(samples.inputs, slice(samples.n_current))
    assert bc[0] == pytest.approx(bc_loss(student(current).dist, samples.action[: samples.n_current]).item(), rel=1e-4)


def test_the_preset_clones_no_replayed_samples_and_wrong_values_are_rejected():
    chosen, plain = (small().with_strategy(name).strategy_config for name in ("perturb", "m2distill"))
    assert (chosen.clone_replay, plain.clone_replay) == (False, True)
    assert (chosen.image, chosen.on, chosen.unit) == (plain.image, "both", "teacher")
    with pytest.raises(ConfigError, match="clone_replay is off and perturb.policy is 0.* allow one of them"):
        small().with_strategy("perturb", policy=0.0)
    for values in ({"shift": 0.6}, {"recombine": -0.1}, {"own_instruction": 1.5}, {"shift": float("nan")}):
        [name] = values
        with pytest.raises(ConfigError, match=f"perturb.{name}"):
            small().with_strategy("latent_perturb", **values)
    with pytest.raises(ValueError, match="needs the instructions of earlier tasks"):
        Perturbation(PerturbConfig(), None)
