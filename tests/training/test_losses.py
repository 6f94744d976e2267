import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.consolidation import quadratic_penalty
from m2distill_training.losses.distill import policy_kl, reverse_policy_kl, sample_actions, token_distance


def mixture(mean_BTKA, std_BTKA, logits_BTK):
    return MixtureSameFamily(Categorical(logits=logits_BTK), Independent(Normal(mean_BTKA, std_BTKA), 1))


def gaussian(mean, std, B=1, T=1, A=2):
    return mixture(torch.full((B, T, 1, A), mean), torch.full((B, T, 1, A), std), torch.zeros(B, T, 1))


def forward_kl(student, teacher, n):
    B, T, _, A = teacher.component_distribution.mean.shape
    draws = SampleRng.of_whole_batch(0, B)
    return policy_kl(student, teacher, sample_actions(teacher, draws.uniform(T, n), draws.normal(T, n, A)))


def reverse_kl(student, teacher, n):
    B, T, K, A = student.component_distribution.mean.shape
    return reverse_policy_kl(student, teacher, SampleRng.of_whole_batch(0, B).normal(T, n, K, A))


def test_bc_loss_of_a_standard_normal_by_hand():
    action = torch.tensor([[[0.0, 0.0], [1.0, 2.0]]])  # (B=1, T=2, A=2)
    per_step = [math.log(2 * math.pi), math.log(2 * math.pi) + (1 + 4) / 2]
    assert bc_loss(gaussian(0.0, 1.0, T=2), action).item() == pytest.approx(sum(per_step) / 2, rel=1e-6)


def test_token_distance_is_the_mean_of_squares_by_hand():
    student = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])  # (B=2, T=1, D=2)
    teacher = torch.tensor([[[0.0, 0.0]], [[0.0, 3.0]]])
    assert token_distance(student, teacher).item() == pytest.approx((1 + 4 + 0 + 9) / 4)


def test_no_gradient_reaches_the_teacher():
    student, teacher = torch.ones(1, 1, 2, requires_grad=True), torch.zeros(1, 1, 2, requires_grad=True)
    token_distance(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_monte_carlo_kl_agrees_with_the_analytic_kl_of_one_gaussian(direction):
    """40,000 draws in all. The estimator's standard error is that of log p - log q, measured on as many draws; 4 of
    them are allowed."""
    torch.manual_seed(0)
    B, T, N = 20, 20, 100
    teacher, student = gaussian(0.1, 0.5, B, T), gaussian(0.4, 0.8, B, T)
    source, other = (teacher, student) if direction == "forward" else (student, teacher)
    analytic = kl_divergence(source.component_distribution, other.component_distribution).mean().item()
    draws = source.sample((N,))
    error = (source.log_prob(draws) - other.log_prob(draws)).std().item() / math.sqrt(B * T * N)
    assert error < 0.0125
    estimate = (forward_kl if direction == "forward" else reverse_kl)(student, teacher, N).item()
    assert analytic > 0.1
    assert abs(estimate - analytic) < 4 * error


def random_mixture(seed, **options):
    g = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(2, 3, 4, 5, generator=g),
        torch.rand(2, 3, 4, 5, generator=g) + 0.3,
        torch.randn(2, 3, 4, generator=g),
    ]
    parts = [part.requires_grad_(options.get("grad", False)) for part in parts]
    return parts, mixture(*parts)


@pytest.mark.parametrize("kl", [forward_kl, reverse_kl])
def test_kl_of_a_mixture_with_itself_is_zero_and_its_gradient_reaches_every_parameter_otherwise(kl):
    _, teacher = random_mixture(0)
    assert kl(teacher, teacher, 8).item() == pytest.approx(0, abs=1e-6)
    parts, student = random_mixture(1, grad=True)
    kl(student, teacher, 8).backward()
    assert all(part.grad.abs().sum() > 0 for part in parts)


def test_reverse_kl_of_mixtures_agrees_with_plain_sampling():
    _, student = random_mixture(1)
    _, teacher = random_mixture(2)
    torch.manual_seed(0)
    draws = student.sample((20000,))
    gaps = (student.log_prob(draws) - teacher.log_prob(draws)).flatten(1).mean(1)  # (20000,), each a mean over B and T
    error = gaps.std().item() / math.sqrt(len(gaps))
    assert reverse_kl(student, teacher, 20000).item() == pytest.approx(gaps.mean().item(), abs=5 * error)


def test_sampled_actions_have_the_mixture_s_modes_and_spread():
    """Mode 1 of two has 3/4 of the draws; within it, mean 2 and deviation 0.5."""
    mean = torch.tensor([-2.0, 2.0]).view(1, 1, 2, 1)
    dist = mixture(mean, torch.full((1, 1, 2, 1), 0.5), torch.tensor([0.25, 0.75]).log().view(1, 1, 2))
    draws = SampleRng.of_whole_batch(0, 1)
    action = sample_actions(dist, draws.uniform(1, 20000), draws.normal(1, 20000, 1))
    assert action.shape == (20000, 1, 1, 1)
    right = action[action > 0]
    assert len(right) / 20000 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 20000))
    assert right.mean().item() == pytest.approx(2, abs=0.02)
    assert right.std().item() == pytest.approx(0.5, abs=0.02)


def test_quadratic_penalty_and_its_gradient_by_hand():
    weights = {"a": torch.tensor([1.0, 2.0], requires_grad=True), "b": torch.tensor([[3.0]], requires_grad=True)}
    anchor = {"a": torch.tensor([0.0, 2.0]), "b": torch.tensor([[1.0]])}
    penalty = quadratic_penalty(weights, anchor, {"a": torch.tensor([5.0, 7.0]), "b": torch.tensor([[0.5]])})
    penalty.backward()
    assert penalty.item() == 5 * 1 + 7 * 0 + 0.5 * 4
    assert weights["a"].grad.tolist() == [2 * 5 * 1, 0]
    assert weights["b"].grad.tolist() == [[2 * 0.5 * 2]]
