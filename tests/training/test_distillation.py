"""Distillation: the terms of m2distill, relabel and recall, their samples and their balance."""

import copy
import dataclasses

import pytest
import torch
from strategy_samples import (
    CURRENT,
    INSTRUCTIONS,
    REPLAYED,
    SPEC,
    make_policy,
    make_samples,
    strategy_with,
)

from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.engine.gradients import TermGradients
from m2distill_training.losses.bc import bc_loss
from m2distill_training.presets import debug, libero, small
from m2distill_training.strategies import Samples
from m2distill_training.strategies.m2distill import rows_of, teacher_forward
from m2distill_training.utils.checks import ConfigError


@pytest.mark.parametrize(
    "strategy",
    [
        *(strategy_with(on=on) for on in ("current", "replay", "both")),
        *(strategy_with(name, on=on) for name in ("relabel", "recall") for on in ("replay", "both", "relabelled")),
        strategy_with(unit="teacher", kl_min_std=0.1),
    ],
)
def test_every_term_is_zero_when_student_and_teacher_are_the_same(strategy):
    policy = make_policy()
    strategy.begin_task(policy, policy)
    losses = strategy.loss(policy, make_samples())
    for term in ("image", "text", "extra", "policy"):
        assert losses[term].item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(losses["loss"], losses["bc"])


def test_relabel_asks_the_teacher_about_new_scenes_under_old_instructions():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy, B = strategy_with("relabel", on="replay"), CURRENT + REPLAYED
    strategy.begin_task(student, teacher)
    shown = strategy.distillation_samples(samples)
    inputs, rows = shown.inputs, shown.rows("replay")
    scenes = {
        "images": {name: x[[3, 4, 0, 1]] for name, x in samples.inputs["images"].items()},
        **{name: samples.inputs[name][[3, 4, 0, 1]] for name in ("joint", "gripper")},
        "text": samples.inputs["text"][[3, 4, 3, 4]],
    }
    torch.testing.assert_close(rows_of(inputs, rows), scenes, rtol=0, atol=0)
    torch.testing.assert_close(rows_of(inputs, slice(B)), samples.inputs, rtol=0, atol=0)
    assert shown.rng_rows[rows].tolist() == [3, 4, 0, 1]

    losses, own = strategy.loss(student, samples), student(scenes)
    torch.testing.assert_close(losses["bc"], bc_loss(student(samples.inputs).dist, samples.action))
    look_at = teacher.eval()(scenes).latents
    torch.testing.assert_close(losses["text"], (own.latents["text"] - look_at["text"]).square().mean())
    losses["policy"].backward()
    assert all(p.grad is not None for p in student.head.parameters())


@pytest.mark.parametrize(
    ("term", "modules"),
    [("image", "image_encoders"), ("text", "text"), ("extra", "joint gripper"), ("policy", "head transformer text")],
)
def test_every_term_pulls_on_its_own_modules(term, modules):
    student, strategy = make_policy(1), strategy_with()
    strategy.begin_task(student, make_policy(0))
    strategy.loss(student, make_samples())[term].backward()
    for name in modules.split():
        for parameter, p in student.named_parameters():
            if parameter.startswith(f"{name}.") and "heatmaps.bias" not in parameter:  # a softmax ignores its bias
                assert p.grad.abs().sum() > 0, parameter
    if term != "policy":
        assert all(p.grad is None for p in student.head.parameters())


def test_the_loss_is_the_weighted_sum():
    strategy = strategy_with(image=2.0, text=3.0, extra=5.0, policy=7.0)
    student = make_policy(1)
    strategy.begin_task(student, make_policy(0))
    x = strategy.loss(student, make_samples())
    torch.testing.assert_close(x["loss"], x["bc"] + 2 * x["image"] + 3 * x["text"] + 5 * x["extra"] + 7 * x["policy"])


@pytest.mark.parametrize("off", ["image", "text", "extra", "policy"])
def test_a_term_of_weight_zero_is_switched_off(off):
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    with torch.no_grad():  # were the term computed, it would be infinite and 0 times it not a number
        {
            "image": teacher.image_encoders[0].project,
            "text": teacher.text,
            "extra": teacher.joint,
            "policy": teacher.head.mean,
        }[off].weight.fill_(torch.inf)
    strategy = strategy_with(**{off: 0.0, "policy": 0.0})  # the policy term sees what any of the others sees
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    assert off not in losses
    assert losses["loss"].isfinite()


def test_image_and_extra_terms_count_every_token_once():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with()
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student.encode(samples.inputs), teacher.encode(samples.inputs)

    def gap(name):
        return (s[name] - t[name]).square().mean()

    torch.testing.assert_close(losses["image"].detach(), gap("agentview") + gap("wrist"))
    torch.testing.assert_close(losses["text"].detach(), gap("text"))
    torch.testing.assert_close(losses["extra"].detach(), gap("joint") + gap("gripper"))


@pytest.mark.parametrize(("on", "rows"), [("current", slice(0, CURRENT)), ("replay", slice(CURRENT, None))])
def test_distillation_uses_only_the_configured_samples(on, rows):
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with(on=on)
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student.encode(samples.inputs), teacher.encode(samples.inputs)
    torch.testing.assert_close(losses["text"].detach(), (s["text"] - t["text"])[rows].square().mean())


def test_the_teacher_stays_as_it_was_and_the_student_remembers_statistics_of_the_mixed_batch():
    """BatchNorm: the teacher uses its running statistics and keeps them; the student's move by one update of the
    statistics of current and replayed samples together."""
    policy, samples = make_policy(norm="batch"), make_samples()
    strategy = strategy_with()
    strategy.begin_task(policy, policy)
    before = {name: x.clone() for name, x in strategy.teacher.state_dict().items()}
    alone, untouched = copy.deepcopy(policy), dict(copy.deepcopy(policy).named_buffers())
    strategy.loss(policy.train(), samples)["loss"].backward()
    assert not strategy.teacher.training
    assert all(torch.equal(x, before[name]) for name, x in strategy.teacher.state_dict().items())
    assert all(p.grad is None for p in strategy.teacher.parameters())
    alone.train()(samples.inputs)  # one forward pass over the whole batch
    for name, x in alone.named_buffers():
        assert torch.equal(x, dict(policy.named_buffers())[name]), name
    moved = [name for name, x in policy.named_buffers() if not torch.equal(x, untouched[name])]
    assert any("running_mean" in name for name in moved)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_teacher_that_looks_at_few_images_at_a_time_sees_the_same(norm, monkeypatch):
    teacher, batch = make_policy(norm=norm).eval(), make_samples().inputs
    whole = teacher(batch)
    for samples in (0, 2, 100):  # that fit: 5 samples one by one, as 2, 2 and 1, and at once
        monkeypatch.setattr("m2distill_training.strategies.m2distill.CPU_PIXELS", samples * SPEC.history * 16 * 16)
        seen = teacher_forward(teacher, batch)
        torch.testing.assert_close(seen.latents, whole.latents)
        torch.testing.assert_close(seen.dist.mean, whole.dist.mean)
        torch.testing.assert_close(seen.dist.stddev, whole.dist.stddev)
        assert not seen.dist.mean.requires_grad


def test_the_teacher_is_a_copy():
    policy = make_policy()
    strategy = strategy_with()
    strategy.begin_task(policy, policy)
    with torch.no_grad():
        policy.text.weight.add_(1)
    assert not torch.equal(policy.text.weight, strategy.teacher.text.weight)


def test_recall_asks_the_teacher_about_every_known_instruction_in_all_scenes():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy, B = strategy_with("recall", on="both", policy_on="replay"), CURRENT + REPLAYED
    strategy.begin_task(student, teacher)
    shown = strategy.distillation_samples(samples)
    torch.testing.assert_close(rows_of(shown.inputs, slice(B)), samples.inputs, rtol=0, atol=0)
    again = rows_of(shown.inputs, slice(B, None))
    for name, x in again["images"].items():
        assert torch.equal(x, samples.inputs["images"][name])
    assert torch.equal(again["joint"], samples.inputs["joint"])
    assert all(any(torch.equal(text, known) for known in INSTRUCTIONS) for text in again["text"])
    assert shown.rng_rows.tolist() == [*range(B), *range(B)]
    seen = {
        int(text[0] // 8)
        for seed in range(20)
        for text in strategy.distillation_samples(
            dataclasses.replace(samples, rng=SampleRng.of_whole_batch(seed, B))
        ).inputs["text"][B:]
    }
    assert seen == {0, 1, 2}

    losses = strategy.loss(student, dataclasses.replace(samples, rng=SampleRng.of_whole_batch(0, B)))
    torch.testing.assert_close(losses["bc"], bc_loss(student(samples.inputs).dist, samples.action))
    s, t = student(shown.inputs), teacher.eval()(shown.inputs)
    torch.testing.assert_close(losses["text"], (s.latents["text"] - t.latents["text"]).square().mean())


def test_parts_of_a_batch_recall_the_instructions_of_the_whole():
    samples, strategy = make_samples(), strategy_with("recall")
    B = CURRENT + REPLAYED
    whole = strategy.distillation_samples(samples).inputs["text"][B:]
    rows = torch.tensor([1, 4])
    part = Samples(rows_of(samples.inputs, rows), samples.action[rows], 1, SampleRng(0, rows, B))
    assert torch.equal(strategy.distillation_samples(part).inputs["text"][2:], whole[rows])


@pytest.mark.parametrize("name", ["m2distill", "relabel", "recall"])
def test_every_term_has_its_own_samples(name):
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with(name, on="both", image_on="current", extra_on="replay", policy_on="current")
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    shown = strategy.distillation_samples(
        dataclasses.replace(samples, rng=SampleRng.of_whole_batch(0, CURRENT + REPLAYED))
    )
    with torch.no_grad():
        s, t = student.encode(shown.inputs), teacher.encode(shown.inputs)

    def gap(token, rows):
        return (s[token][rows] - t[token][rows]).square().mean()

    current, replay = slice(CURRENT), slice(CURRENT, None)
    torch.testing.assert_close(losses["image"].detach(), gap("agentview", current) + gap("wrist", current))
    torch.testing.assert_close(losses["text"].detach(), gap("text", slice(None)))
    torch.testing.assert_close(losses["extra"].detach(), gap("joint", replay) + gap("gripper", replay))


def test_the_divergence_of_the_preset_is_not_on_new_samples_under_the_new_instruction():
    """The teacher has no answer there. The loss on replayed samples does not depend on the current ones."""
    for preset in (debug, small, libero):
        config = preset().strategy_config
        assert (config.samples_of("policy"), config.samples_of("image")) == ("replay", "both")


def test_a_term_on_samples_that_the_strategy_does_not_have_is_rejected():
    with pytest.raises(ConfigError, match=r"distill.image_on is 'relabelled', but this strategy has current and rep"):
        strategy_with(image_on="relabelled")
    with pytest.raises(ConfigError, match=r"distill.on is 'relabelled'"):
        strategy_with(on="relabelled")
    strategy_with("relabel", on="relabelled")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"image": -1.0}, "distill.image is -1.0, allowed at least 0"),
        ({"policy": float("nan")}, "distill.policy is nan, allowed at least 0"),
        ({"text": float("inf")}, "distill.text is inf, allowed at least 0"),
        ({"kl_min_std": -0.1}, "distill.kl_min_std is -0.1, allowed 0 to 10"),
        ({"balance_every": -1}, "distill.balance_every is -1, allowed at least 0"),
        ({"unit": "tokens"}, "unknown distill.unit 'tokens'; did you mean 'token'"),
        ({"policy_on": "bth"}, "unknown distill.policy_on 'bth'; did you mean 'both'"),
    ],
)
def test_bad_hyper_parameters_are_one_line(value, message):
    with pytest.raises(ConfigError) as raised:
        strategy_with(**value)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_token_sizes_are_those_of_the_first_batch_and_of_the_teacher():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with(unit="teacher", on="replay", policy=0.0)
    strategy.begin_task(student, teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student.encode(samples.inputs), teacher.eval().encode(samples.inputs)

    def gap(token):
        return (s[token] - t[token])[CURRENT:].square().sum(-1).mean()

    def variance(token):
        return (t[token] - t[token].mean((0, 1))).square().sum(-1).mean()

    image = sum(gap(token) / variance(token) for token in ("agentview", "wrist"))
    torch.testing.assert_close(losses["image"].detach(), image)
    torch.testing.assert_close(losses["text"].detach(), gap("text") / t["text"].square().sum(-1).mean())


def test_measured_gradients_set_the_multipliers():
    """The gradient of each term becomes its share of the gradient of behaviour cloning."""
    shares = {"image": 0.3, "text": 0.2, "extra": 0.1, "policy": 0.5}
    strategy = strategy_with(balance_every=8, **shares)
    student = make_policy(1)
    assert strategy.measured_losses(8) == ()  # without a teacher there is nothing to balance
    strategy.begin_task(student, make_policy(0))
    assert [step for step in range(20) if strategy.measured_losses(step)] == [2, 8, 16]
    losses = strategy.loss(student, make_samples())
    torch.testing.assert_close(losses["loss"], losses["bc"] + sum(shares[name] * losses[name] for name in shares))
    measured = TermGradients(student, strategy.measured_losses(8))
    measured.add(losses, 1.0)
    norms = measured.norms()
    strategy.take_gradient_norms(norms)
    again = strategy.loss(student, make_samples())
    for name, share in shares.items():
        assert strategy.factor(name) * norms[name] == pytest.approx(share * norms["bc"], rel=1e-5)
    total = again["bc"] + sum(strategy.factor(name) * again[name] for name in shares)
    torch.testing.assert_close(again["loss"], total)
    assert strategy.log_values().keys() == {f"multiplier_{x}" for x in shares} | {f"grad_norm_{x}" for x in norms}
