"""The cache of the teacher's image tokens: the same weights bit for bit, with fewer images encoded."""

import dataclasses

import pytest
import torch

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_training.config import AugmentConfig
from m2distill_training.engine.train import train
from m2distill_training.presets import debug
from m2distill_training.strategies import m2distill
from m2distill_training.strategies.token_cache import TokenCache

NOT_AUGMENTED = AugmentConfig(color=0.0, color_probability=0.9, crop_pad_px=0)
STEPS = 16


@pytest.fixture
def files(libero_file):
    return [libero_file(text, instruction=text, seed=i) for i, text in enumerate(("pick up the milk", "close it"))]


def config_of(strategy: str, precision: str = "float32", augment: AugmentConfig = NOT_AUGMENTED):
    config = debug().with_strategy(strategy)
    optim = dataclasses.replace(config.optim, budget=STEPS, batch_size=12)
    return dataclasses.replace(config, optim=optim, augment=augment, precision=precision, save_every=5)


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of samples that a cache had encoded, a call each."""
    calls, original = [], TokenCache.tokens

    def counting(self, windows, encode):
        def counted():
            calls.append(len(windows))
            return encode()

        return original(self, windows, counted)

    monkeypatch.setattr(TokenCache, "tokens", counting)
    return calls


@pytest.mark.parametrize(
    ("strategy", "precision"),
    [
        ("m2distill", "bfloat16"),
        *((name, "float32") for name in ("relabel", "recall", "stored", "latent_recall")),
    ],
)
def test_cached_tokens_lead_to_the_same_weights(strategy, precision, files, tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(m2distill, "CPU_PIXELS", 3 * 4 * 16 * 16)  # three samples at a time
    config = config_of(strategy, precision)
    found = train(config, files, tmp_path / "cached").checkpoint(2)
    with_cache = sum(encoded)
    encoded.clear()
    monkeypatch.setattr(TokenCache.__init__, "__defaults__", (0,))
    expected = train(config, files, tmp_path / "not_cached").checkpoint(2)
    assert load_checkpoint(found).id == load_checkpoint(expected).id
    assert 0 < with_cache < sum(encoded)


def test_a_resumed_stage_ends_in_the_same_weights(files, tmp_path):
    config, run = config_of("m2distill"), tmp_path / "run"

    def stop(progress):
        if (progress.stage, progress.step) == (2, 13):
            raise MemoryError

    with pytest.raises(MemoryError):
        train(config, files, run, on_step=stop)
    resumed = train(config, files, run, resume=True).checkpoint(2)
    whole = train(config, files, tmp_path / "whole").checkpoint(2)
    assert load_checkpoint(resumed).id == load_checkpoint(whole).id


@pytest.mark.parametrize("augment", [AugmentConfig(0.3, 0.9, 0), AugmentConfig(0.0, 0.0, 1)])
def test_augmented_images_are_not_cached(augment, files, tmp_path, encoded):
    train(config_of("m2distill", augment=augment), files, tmp_path / "run")
    assert encoded == []


def tokens_of(windows: torch.Tensor, shift: float = 0.0) -> dict[str, torch.Tensor]:
    return {"view": windows[:, None, None].expand(-1, 2, 4).float() + shift}


def test_memory_is_bounded_and_windows_beyond_it_are_encoded():
    cache = TokenCache(10, limit_bytes=3 * 2 * 4 * 4)  # three windows
    first, second = torch.tensor([4, 7]), torch.tensor([9, 2])
    calls = []

    def ask(windows):
        def encode():
            calls.append(windows.tolist())
            return tokens_of(windows)

        assert torch.equal(cache.tokens(windows, encode)["view"], tokens_of(windows)["view"])

    for windows in (first, second, first, first, second, torch.tensor([7, 9]), torch.tensor([-1, 4])):
        ask(windows)
    assert calls == [[4, 7], [9, 2], [4, 7], [9, 2], [-1, 4]]  # the third compares


def test_a_cache_whose_tokens_depend_on_the_batch_switches_itself_off():
    cache, windows = TokenCache(10), torch.tensor([1, 2])
    cache.tokens(windows, lambda: tokens_of(windows))
    other = tokens_of(windows, shift=1e-6)
    for _ in range(3):
        assert cache.tokens(windows, lambda: other) is other
    assert not cache.enabled


def test_the_chunks_of_a_teacher_are_those_without_a_cache(monkeypatch):
    """A window is found in a chunk of another size than the one it was encoded in."""
    from strategy_samples import SPEC, make_policy, make_samples

    monkeypatch.setattr(m2distill, "CPU_PIXELS", 3 * SPEC.history * 16 * 16)
    teacher, batch = make_policy().eval(), make_samples().inputs
    cache, windows = TokenCache(5), torch.arange(5)
    turned = torch.tensor([4, 2, 0, 1, 3])
    expected = m2distill.teacher_forward(teacher, m2distill.rows_of(batch, turned))
    m2distill.teacher_forward(teacher, batch, cache, windows)
    for _ in range(2):
        found = m2distill.teacher_forward(teacher, m2distill.rows_of(batch, turned), cache, turned)
        assert cache.enabled
        for name, x in expected.latents.items():
            assert torch.equal(found.latents[name], x)
        assert torch.equal(found.dist.mean, expected.dist.mean)
