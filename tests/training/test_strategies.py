import copy
import dataclasses

import numpy as np
import pytest
import torch

from m2distill_policy.models import Policy
from m2distill_policy.observation_tensors import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.losses.bc import bc_loss
from m2distill_training.presets import debug
from m2distill_training.strategies import STRATEGIES, Samples, make_strategy

SPEC = libero_spec(size_px=16, history=4, text_encoder="test", text_width=8)
CURRENT, REPLAYED = 3, 2


def make_samples() -> Samples:
    rng = np.random.default_rng(0)
    B, T = CURRENT + REPLAYED, SPEC.history
    images = {camera.name: rng.integers(0, 256, (B, T, 16, 16, 3), np.uint8) for camera in SPEC.cameras}
    inputs = to_model_input(images, *(rng.normal(size=shape).astype(np.float32)
                                      for shape in ((B, T, 7), (B, T, 2), (B, 8))))
    return Samples(inputs, torch.from_numpy(rng.uniform(-1, 1, (B, T, 7)).astype(np.float32)), CURRENT)


def make_policy(seed: int = 0, norm: str = "group") -> Policy:
    torch.manual_seed(seed)
    return Policy(dataclasses.replace(debug().model, norm=norm, dropout=0.0), SPEC)


def strategy_with(**distill):
    return make_strategy(dataclasses.replace(debug(), distill=dataclasses.replace(debug().distill, **distill)))


def test_finetune_is_behaviour_cloning_on_the_whole_batch():
    policy, samples = make_policy(), make_samples()
    losses = STRATEGIES["finetune"](debug()).loss(policy, samples)
    expected = bc_loss(policy(samples.inputs).dist, samples.action)
    torch.testing.assert_close(losses["loss"], expected)


@pytest.mark.parametrize("on", ["current", "replay", "both"])
def test_every_term_is_zero_when_student_and_teacher_are_the_same(on):
    policy = make_policy()
    strategy = strategy_with(on=on)
    strategy.begin_task(policy)
    losses = strategy.loss(policy, make_samples())
    for term in ("image", "text", "extra", "policy"):
        assert losses[term].item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(losses["loss"], losses["bc"])


@pytest.mark.parametrize(("term", "modules"), [
    ("image", "image_encoders"), ("text", "text"), ("extra", "joint gripper"), ("policy", "head transformer text")])
def test_every_term_pulls_on_its_own_modules(term, modules):
    student, strategy = make_policy(1), strategy_with()
    strategy.begin_task(make_policy(0))
    strategy.loss(student, make_samples())[term].backward()
    for name in modules.split():
        for parameter, p in student.named_parameters():
            if parameter.startswith(f"{name}.") and "heatmaps.bias" not in parameter:  # a softmax ignores its bias
                assert p.grad.abs().sum() > 0, parameter
    if term != "policy":
        assert all(p.grad is None for p in student.head.parameters())


def test_the_loss_is_the_weighted_sum():
    strategy = strategy_with(image=2.0, text=3.0, extra=5.0, policy=7.0)
    strategy.begin_task(make_policy(0))
    x = strategy.loss(make_policy(1), make_samples())
    torch.testing.assert_close(
        x["loss"], x["bc"] + 2 * x["image"] + 3 * x["text"] + 5 * x["extra"] + 7 * x["policy"])


def test_image_and_extra_terms_count_every_token_once():
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with()
    strategy.begin_task(teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student.encode(samples.inputs), teacher.encode(samples.inputs)
    def gap(name):
        return (s[name] - t[name]).square().mean()

    torch.testing.assert_close(losses["image"].detach(), gap("agentview") + gap("wrist"))
    torch.testing.assert_close(losses["text"].detach(), gap("text"))
    torch.testing.assert_close(losses["extra"].detach(), gap("joint") + gap("gripper"))


@pytest.mark.parametrize(("on", "rows"), [("current", slice(0, CURRENT)), ("replay", slice(CURRENT, None))])
def test_distillation_sees_only_the_samples_it_is_told_to(on, rows):
    student, teacher, samples = make_policy(1), make_policy(0), make_samples()
    strategy = strategy_with(on=on)
    strategy.begin_task(teacher)
    losses = strategy.loss(student, samples)
    with torch.no_grad():
        s, t = student.encode(samples.inputs), teacher.encode(samples.inputs)
    torch.testing.assert_close(losses["text"].detach(), (s["text"] - t["text"])[rows].square().mean())


def test_the_teacher_stays_as_it_was_and_the_student_remembers_statistics_of_the_mixed_batch():
    """BatchNorm: the teacher uses its running statistics and keeps them; the student's move by one update of the
    statistics of current and replayed samples together."""
    policy, samples = make_policy(norm="batch"), make_samples()
    strategy = strategy_with()
    strategy.begin_task(policy)
    before = {name: x.clone() for name, x in strategy.teacher.state_dict().items()}
    alone = copy.deepcopy(policy)
    strategy.loss(policy.train(), samples)["loss"].backward()
    assert not strategy.teacher.training
    assert all(torch.equal(x, before[name]) for name, x in strategy.teacher.state_dict().items())
    assert all(p.grad is None for p in strategy.teacher.parameters())
    alone.train()(samples.inputs)  # one forward pass over the whole batch
    for name, x in alone.named_buffers():
        assert torch.equal(x, dict(policy.named_buffers())[name]), name
    moved = [name for name, x in policy.named_buffers() if not torch.equal(x, before[name])]
    assert any("running_mean" in name for name in moved)


def test_the_teacher_is_a_copy():
    policy = make_policy()
    strategy = strategy_with()
    strategy.begin_task(policy)
    with torch.no_grad():
        policy.text.weight.add_(1)
    assert not torch.equal(policy.text.weight, strategy.teacher.text.weight)
