"""InferencePolicy: its history, its sampling modes, and its random generator."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.control import inference
from m2distill_policy.control.inference import LOW_NOISE_STD, InferencePolicy
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, small
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import libero_spec

SPEC = libero_spec(size_px=64, history=3, text_encoder="all-MiniLM-L6-v2", text_width=384)
CONFIG = dataclasses.replace(small(), layers=1, mixture_hidden=32)
TEXTS = np.random.default_rng(7).normal(size=(2, 384)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint():
    torch.manual_seed(0)
    return Checkpoint(SPEC, CONFIG, Policy(CONFIG, SPEC).state_dict(), {})


@pytest.fixture(scope="module")
def observations():
    random = np.random.default_rng(0)
    return [
        Observation(
            {c.name: random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for c in SPEC.cameras},
            random.normal(size=7).astype(np.float32),
            random.normal(size=2).astype(np.float32),
            stamp_ns=t,
        )
        for t in range(6)
    ]


def mixture_of_window(checkpoint, window, text):
    """Return the mixture of the whole network for the last `history` observations, as a reference."""
    with torch.no_grad():
        output = checkpoint.build_policy().eval()(
            to_model_input(
                {c.name: np.stack([o.images[c.name] for o in window])[None] for c in SPEC.cameras},
                np.stack([o.joint for o in window])[None],
                np.stack([o.gripper for o in window])[None],
                text[None],
            )
        )
    dist = output.dist
    return (
        dist.component_distribution.mean[0, -1].numpy(),
        dist.component_distribution.stddev[0, -1].numpy(),
        dist.mixture_distribution.logits[0, -1].numpy(),
    )


def loaded(checkpoint, **kwargs):
    policy = InferencePolicy(checkpoint, **kwargs)
    policy.set_text(TEXTS[0])
    return policy


def test_bfloat16_moves_actions_a_little(checkpoint, observations):
    exact, rounded = (loaded(checkpoint, sampling="mode", precision=name) for name in ("float32", "bfloat16"))
    distances = [np.abs(exact.step(o).action - rounded.step(o).action).max() for o in observations]
    assert 0 < max(distances) < 0.01
    with pytest.raises(UserError, match="unknown precision 'float8'; did you mean 'float32'"):
        InferencePolicy(checkpoint, precision="float8")


def test_the_queue_gives_the_mixture_of_the_last_history_steps(checkpoint, observations):
    policy = loaded(checkpoint, sampling="mode")
    for t, observation in enumerate(observations):
        sample = policy.step(observation)
        means, stds, logits = mixture_of_window(
            checkpoint, observations[max(0, t + 1 - SPEC.history) : t + 1], TEXTS[0]
        )
        assert sample.mode == logits.argmax()
        np.testing.assert_allclose(sample.action, means[sample.mode], atol=1e-5)
        densities = (-0.5 * ((sample.action - means) / stds) ** 2 - np.log(stds) - 0.5 * np.log(2 * np.pi)).sum(1)
        assert sample.log_prob == pytest.approx(np.logaddexp.reduce(logits + densities), abs=1e-4)
        assert sample.entropy == pytest.approx(-(np.exp(logits) * logits).sum(), abs=1e-5)
        np.testing.assert_allclose(sample.weights, np.exp(logits), atol=1e-6)
        assert sample.action.dtype == np.float32


@pytest.mark.parametrize("forget", [lambda policy: policy.reset(), lambda policy: policy.set_text(TEXTS[0])])
def test_reset_and_a_new_instruction_clear_the_history(checkpoint, observations, forget):
    fresh, used = loaded(checkpoint, sampling="mode"), loaded(checkpoint, sampling="mode")
    for observation in observations[:3]:
        used.step(observation)
    with_history = used.step(observations[4]).action
    forget(used)
    expected = fresh.step(observations[5]).action
    np.testing.assert_array_equal(used.step(observations[5]).action, expected)
    assert not np.array_equal(with_history, expected)


def test_the_instruction_changes_the_action(checkpoint, observations):
    policy = loaded(checkpoint, sampling="mode")
    first = policy.step(observations[0]).action
    policy.set_text(TEXTS[1])
    assert not np.allclose(policy.step(observations[0]).action, first, atol=1e-4)


def test_a_seed_determines_the_samples_whatever_the_global_generator_does(checkpoint, observations):
    def run(seed):
        policy = loaded(checkpoint, seed=seed)
        actions = []
        for observation in observations:
            torch.rand(3)
            actions.append(policy.step(observation).action)
        return np.stack(actions)

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def draws(checkpoint, observation, sampling, count=1500):
    policy = loaded(checkpoint, sampling=sampling, seed=3)
    samples = []
    for _ in range(count):
        policy.reset()
        samples.append(policy.step(observation))
    return np.stack([s.action for s in samples]), np.array([s.mode for s in samples])


@pytest.mark.slow
def test_samples_have_the_mixtures_weights_means_and_deviations(checkpoint, observations):
    means, stds, logits = mixture_of_window(checkpoint, observations[:1], TEXTS[0])
    actions, modes = draws(checkpoint, observations[0], "stochastic")
    weights = np.exp(logits)
    np.testing.assert_allclose(np.bincount(modes, minlength=5) / len(modes), weights, atol=0.05)  # 4 standard errors
    standard = (actions - means[modes]) / stds[modes]
    np.testing.assert_allclose(standard.mean(0), 0, atol=0.12)  # 4.6 standard errors
    np.testing.assert_allclose(standard.std(0), 1, atol=0.09)


@pytest.mark.slow
def test_low_noise_draws_the_mode_and_hardly_anything_else(checkpoint, observations):
    means, _, logits = mixture_of_window(checkpoint, observations[:1], TEXTS[0])
    actions, modes = draws(checkpoint, observations[0], "low_noise", count=400)
    np.testing.assert_allclose(np.bincount(modes, minlength=5) / len(modes), np.exp(logits), atol=0.1)
    noise = actions - means[modes]
    assert 0.8 * LOW_NOISE_STD < noise.std() < 1.2 * LOW_NOISE_STD


def test_an_unknown_sampling_mode_is_rejected_with_a_suggestion(checkpoint):
    with pytest.raises(UserError, match="did you mean 'stochastic'"):
        InferencePolicy(checkpoint, sampling="stochastik")


def test_a_step_before_any_instruction_is_an_error_of_the_caller(checkpoint, observations):
    with pytest.raises(RuntimeError, match="set_text"):
        InferencePolicy(checkpoint).step(observations[0])


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_acts_as_the_processor(checkpoint, observations, precision):
    on_cpu, on_gpu = (loaded(checkpoint, seed=3, precision=precision, device=name) for name in ("cpu", "cuda"))
    for observation in observations:
        expected, found = on_cpu.step(observation), on_gpu.step(observation)
        assert found.mode == expected.mode
        np.testing.assert_allclose(found.action, expected.action, atol=0.02)  # cuDNN rounds to TF32


def test_a_device_that_cannot_be_used_is_one_line(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="^device is cuda, and torch finds no GPU here; set device to cpu$"):
        InferencePolicy(checkpoint, device="cuda")
    with pytest.raises(UserError, match="unknown device 'cud'; did you mean 'cuda'"):
        InferencePolicy(checkpoint, device="cud")
    with pytest.raises(UserError, match="inference_backend openvino runs on the CPU only; set device to cpu"):
        InferencePolicy(checkpoint, backend="openvino", device="cuda")


def test_every_tensor_of_a_step_is_on_the_device_of_the_policy(checkpoint, observations, monkeypatch):
    """Without a GPU: torch's device "meta" computes shapes alone and rejects a tensor of another device."""
    monkeypatch.setattr(inference, "_require_device", lambda device, backend: None)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know it
    policy = loaded(checkpoint, device="meta")
    seen = []

    def take(mixture):
        seen.append(mixture.mixture_distribution.logits.device.type)
        raise StopIteration

    monkeypatch.setattr(inference, "_on_cpu", take)
    with pytest.raises(StopIteration):
        policy.step(observations[0])
    assert seen == ["meta"]
