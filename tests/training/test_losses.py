import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.losses.bc import bc_loss
from m2distill_training.losses.consolidation import quadratic_penalty
from m2distill_training.losses.distill import (
    MULTIPLIERS,
    multiplier,
    policy_kl,
    relative_distance,
    reverse_policy_kl,
    sample_actions,
    token_distance,
    token_power,
    token_variance,
    widened,
)


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


def test_relative_distance_by_hand():
    student = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])  # (B=2, T=1, D=2)
    teacher = torch.tensor([[[0.0, 0.0]], [[0.0, 4.0]]])
    assert token_variance(teacher).item() == 4.0  # mean (0, 2), both rows 4 away from it
    assert token_power(teacher).item() == 8.0
    assert relative_distance(student, teacher, token_variance(teacher)).item() == (5 + 16) / 2 / 4
    assert relative_distance(student, teacher, token_power(teacher)).item() == (5 + 16) / 2 / 8


def test_relative_distance_has_no_unit():
    """Distances in other units, or of another width, are the same; the student that knows nothing is 1 away."""
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    distance = relative_distance(student, teacher, token_variance(teacher))
    scaled = relative_distance(100 * student, 100 * teacher, token_variance(100 * teacher))
    torch.testing.assert_close(scaled, distance)
    wide = [x.repeat(1, 1, 2) for x in (student, teacher)]
    torch.testing.assert_close(relative_distance(*wide, token_variance(wide[1])), distance)
    mean = teacher.mean((0, 1)).expand_as(teacher)
    assert relative_distance(mean, teacher, token_variance(teacher)).item() == pytest.approx(1)
    text = torch.randn(8).expand(4, 3, 8)  # one instruction: no variance
    assert relative_distance(torch.zeros(4, 3, 8), text, token_power(text)).item() == pytest.approx(1)


def test_the_size_of_a_constant_token_is_not_zero():
    constant = torch.full((2, 3, 4), 5.0)
    assert token_variance(constant).item() == pytest.approx(1e-6 * 100)
    assert token_variance(torch.zeros(2, 3, 4)).item() > 0
    assert relative_distance(constant, constant, token_variance(constant)).item() == 0


def test_gradients_of_the_terms_in_float64():
    torch.manual_seed(0)
    student, teacher = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for distance in (token_distance, lambda s, t: relative_distance(s, t, token_variance(t))):
        assert torch.autograd.gradcheck(lambda s, d=distance: d(s, teacher), student, atol=1e-7)
    distance(student, teacher).backward()
    assert teacher.grad is None
    mean, std, logits = (
        torch.rand(shape, dtype=torch.float64) + 0.5 for shape in ((2, 1, 3, 2), (2, 1, 3, 2), (2, 1, 3))
    )
    fixed = mixture(mean + 0.1, std, logits)
    draws = SampleRng.of_whole_batch(0, 2)
    action = sample_actions(fixed, draws.uniform(1, 8).double(), draws.normal(1, 8, 2).double())
    inputs = [x.clone().requires_grad_() for x in (mean, std, logits)]
    assert torch.autograd.gradcheck(
        lambda *x: policy_kl(widened(mixture(*x), 0.03), widened(fixed, 0.03), action), inputs, atol=1e-7
    )


def test_a_widened_mixture_by_hand():
    dist = gaussian(0.5, 3.0)
    assert widened(dist, 0) is dist
    wide = widened(dist, 4.0).component_distribution
    assert wide.stddev.unique().tolist() == [5.0]
    assert wide.mean.unique().tolist() == [0.5]


def test_tiny_deviations_do_not_make_an_enormous_divergence_of_widened_mixtures():
    """Two policies that differ by 1 cm of 5 and whose deviation is 1e-4: 20000 nats, and 1 with a floor of 0.14."""
    teacher, student = gaussian(0.0, 1e-4, A=1), gaussian(0.2, 1e-4, A=1)
    assert forward_kl(student, teacher, 16).item() > 1e6
    floor = 0.2 / math.sqrt(2)
    assert forward_kl(widened(student, floor), widened(teacher, floor), 4000).item() == pytest.approx(1, abs=0.1)


def test_the_multiplier_makes_a_gradient_a_share_of_clonings():
    assert multiplier(0.3, 50.0, 0.1, None) == pytest.approx(0.3 * 50 / 0.1)
    assert multiplier(0.5, 40.0, 10.0, 8.0) == pytest.approx(math.sqrt(2.0 * 8.0))  # smoothed
    assert multiplier(0.5, 40.0, 0.0, None) == MULTIPLIERS[1]  # student and teacher are equal
    assert multiplier(1e-9, 1e-9, 1.0, None) == MULTIPLIERS[0]
