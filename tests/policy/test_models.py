"""Policy network: causality, batching, shapes of the mixture, precision and the configuration file."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from m2distill_policy.errors import SpecError
from m2distill_policy.models import PRESETS, ModelConfig, Policy, ResNetStage, small
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.models.image_encoder import FilmBlock, spatial_softmax
from m2distill_policy.models.transformer import Layer, time_code
from m2distill_policy.spec import libero_spec

SPEC = libero_spec(size_px=64, history=10, text_encoder="all-MiniLM-L6-v2", text_width=384)
B, T = 2, 4


def random_batch(seed=0, batch=B, steps=T):
    random = np.random.default_rng(seed)
    return to_model_input(
        {c.name: random.integers(0, 256, (batch, steps, c.height, c.width, 3), dtype=np.uint8) for c in SPEC.cameras},
        random.normal(size=(batch, steps, 7)).astype(np.float32),
        random.uniform(0, 0.04, (batch, steps, 2)).astype(np.float32),
        random.normal(size=(batch, SPEC.text_width)).astype(np.float32),
    )


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return Policy(small(), SPEC).eval()


def test_to_model_input_divides_by_255_and_puts_channels_before_rows():
    pixels = np.zeros((1, 1, 64, 64, 3), dtype=np.uint8)
    pixels[0, 0, 5, 7, 2] = 51
    batch = to_model_input({"agentview": pixels}, np.ones((1, 1, 7)), np.ones((1, 1, 2)), np.ones((1, 384)))
    image = batch["images"]["agentview"]
    assert image.shape == (1, 1, 3, 64, 64)
    assert image[0, 0, 2, 5, 7].item() == np.float32(0.2)
    assert image.sum().item() == np.float32(0.2)
    assert {t.dtype for t in (image, batch["joint"], batch["gripper"], batch["text"])} == {torch.float32}


def test_a_camera_named_like_another_input_is_rejected():
    camera = dataclasses.replace(SPEC.cameras[0], name="joint")
    with pytest.raises(SpecError, match="a camera is named 'joint'"):
        Policy(small(), dataclasses.replace(SPEC, cameras=(camera,)))


def test_the_small_preset_has_few_parameters():
    assert sum(p.numel() for p in Policy(small(), SPEC).parameters()) < 600_000


def test_output_shapes_match_the_docstring(policy):
    output = policy(random_batch())
    assert output.dist.batch_shape == (B, T)
    assert output.dist.event_shape == (7,)
    assert output.dist.mixture_distribution.logits.shape == (B, T, small().modes)
    assert list(output.latents) == ["text", "joint", "gripper", "agentview", "wrist"]
    assert {latent.shape for latent in output.latents.values()} == {(B, T, small().width)}
    assert (output.dist.component_distribution.stddev >= small().min_std).all()
    assert output.dist.component_distribution.mean.abs().max() < 1


def test_a_later_observation_does_not_change_an_earlier_mixture(policy):
    batch, changed = random_batch(), random_batch()
    changed["joint"][:, 2] += 1
    changed["images"]["wrist"][:, 2] *= 0.5
    before = policy(batch).dist.component_distribution.mean
    after = policy(changed).dist.component_distribution.mean
    torch.testing.assert_close(before[:, :2], after[:, :2])
    for t in (2, 3):
        assert (before[:, t] - after[:, t]).abs().max() > 1e-5


@pytest.mark.parametrize("part", ["agentview", "wrist", "joint", "gripper", "text"])
def test_every_input_changes_the_action(policy, part):
    batch, changed = random_batch(), random_batch()
    other = random_batch(seed=1)
    if part in changed["images"]:
        changed["images"][part] = other["images"][part]
    else:
        changed[part] = other[part]
    before, after = policy(batch).dist, policy(changed).dist
    assert (before.component_distribution.mean - after.component_distribution.mean).abs().max() > 1e-5


@pytest.mark.parametrize(("norm", "apart"), [("group", True), ("batch", False)])
def test_only_group_norm_keeps_the_samples_of_a_batch_independent(norm, apart):
    policy = Policy(dataclasses.replace(small(), norm=norm, dropout=0.0), SPEC).train()
    alone, together = random_batch(batch=1), random_batch(seed=3, batch=2)
    for name in alone["images"]:
        together["images"][name][0] = alone["images"][name][0]
    for name in ("joint", "gripper", "text"):
        together[name][0] = alone[name][0]
    one, two = (policy(batch).dist.component_distribution.mean[0] for batch in (alone, together))
    assert ((one - two).abs().max() < 1e-5) == apart


def test_queued_steps_give_the_mixture_of_the_whole_window(policy):
    batch = random_batch()
    steps = [
        policy.encode_step(
            {
                "images": {name: x[:, t : t + 1] for name, x in batch["images"].items()},
                "joint": batch["joint"][:, t : t + 1],
                "gripper": batch["gripper"][:, t : t + 1],
                "text": batch["text"],
            }
        )
        for t in range(T)
    ]
    newest, window = policy.decode(torch.cat(steps, 1)), policy(batch).dist
    assert newest.batch_shape == (B,)
    torch.testing.assert_close(newest.component_distribution.mean, window.component_distribution.mean[:, -1])
    torch.testing.assert_close(newest.mixture_distribution.logits, window.mixture_distribution.logits[:, -1])


def test_every_weight_learns(policy):
    policy.train()
    loss = -policy(random_batch()).dist.log_prob(torch.zeros(B, T, 7)).mean()
    loss.backward()
    for name, parameter in policy.named_parameters():
        if not name.endswith("heatmaps.bias"):  # an offset on a whole heatmap moves no keypoint
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_bfloat16_autocast_changes_only_the_convolutions(norm):
    torch.manual_seed(0)
    policy = Policy(dataclasses.replace(small(), norm=norm, dropout=0.0), SPEC)
    batch = random_batch()
    full = policy(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = policy(batch)
    half.dist.log_prob(torch.zeros(B, T, 7)).mean().backward()
    assert {x.dtype for x in half.latents.values()} == {half.dist.component_distribution.mean.dtype} == {torch.float32}
    for name in ("text", "joint", "gripper"):
        assert torch.equal(full.latents[name], half.latents[name])
    for camera in ("agentview", "wrist"):
        difference = (full.latents[camera] - half.latents[camera]).abs().max()
        assert 0 < difference < 0.02


def test_gripper_gain_scales_only_the_gripper(policy):
    stronger = Policy(dataclasses.replace(small(), gripper_gain=2 * small().gripper_gain), SPEC).eval()
    stronger.load_state_dict(policy.state_dict())
    batch = random_batch()
    weak, strong = policy.encode(batch)["gripper"], stronger.encode(batch)["gripper"]
    bias = policy.gripper.bias
    torch.testing.assert_close(strong - bias, 2 * (weak - bias))
    assert torch.equal(policy.encode(batch)["joint"], stronger.encode(batch)["joint"])


def test_spatial_softmax_returns_the_position_of_a_peak_rows_first():
    heatmaps = torch.full((1, 2, 5, 9), -100.0)
    heatmaps[0, 0, 4, 0] = 100.0  # bottom left
    heatmaps[0, 1, 1, 6] = 100.0
    torch.testing.assert_close(spatial_softmax(heatmaps), torch.tensor([[1.0, -0.5, -1.0, 0.5]]))


def test_film_scales_by_one_plus_gamma_and_adds_beta():
    block = FilmBlock(4, 4, stride=1, norm="group", text_width=3)
    torch.nn.init.zeros_(block.film.weight)
    torch.nn.init.zeros_(block.film.bias)
    h, text = torch.rand(6, 4, 5, 5), torch.rand(2, 3)  # three frames for each text
    plain = block(h, text)
    with torch.no_grad():
        block.film.bias.copy_(torch.tensor([10.0, 0, 0, 0, 2.0, 0, 0, 0]))  # beta of channel 0, then its gamma
    torch.testing.assert_close(block(h, text)[:, 0], 3 * plain[:, 0] + 10)
    torch.testing.assert_close(block(h, text)[:, 1:], plain[:, 1:])


def test_film_uses_the_text_of_its_own_window():
    block = FilmBlock(4, 4, stride=1, norm="group", text_width=3)
    h, text = torch.rand(1, 4, 5, 5).expand(6, -1, -1, -1), torch.randn(2, 3)
    out = block(h, text)
    assert torch.equal(out[0], out[2])
    assert torch.equal(out[3], out[5])
    assert (out[2] - out[3]).abs().max() > 1e-3


def test_a_policy_can_be_trained_after_inference_in_the_same_process():
    """Cached tensors must not be inference tensors, because torch cannot differentiate those."""
    policy = Policy(dataclasses.replace(small(), layers=1), SPEC)
    tokens = torch.rand(1, 7, 5, policy.config.width)
    with torch.inference_mode():
        policy.transformer(tokens)
    policy.transformer(tokens.requires_grad_()).sum().backward()
    assert tokens.grad.abs().sum() > 0


def test_time_code_has_the_hand_computed_values():
    code = time_code(3, 4, base=10.0, device=torch.device("cpu"))
    slow = 10**-0.5
    expected = [
        [0, 0, 1, 1],
        [np.sin(1), np.sin(slow), np.cos(1), np.cos(slow)],
        [np.sin(2), np.sin(2 * slow), np.cos(2), np.cos(2 * slow)],
    ]
    torch.testing.assert_close(code, torch.tensor(expected, dtype=torch.float32))


def test_drop_path_drops_the_mlp_branch_of_whole_samples_and_keeps_its_mean():
    torch.manual_seed(0)
    layer = Layer(dataclasses.replace(small(), dropout=0.5)).train()
    for module in layer.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x = torch.randn(1, 5, small().width).expand(4000, -1, -1)
    with torch.no_grad():
        out = layer(x, torch.ones(5, 5, dtype=torch.bool))
        layer.eval()
        attended = x[:1] + layer.attention(layer.attention_norm(x[:1]), torch.ones(5, 5, dtype=torch.bool))
        branch = layer.mlp(layer.mlp_norm(attended))
    dropped = (out - attended).abs().amax((1, 2)) < 1e-6
    assert abs(dropped.float().mean().item() - 0.5) < 0.05  # 6 standard errors
    torch.testing.assert_close(out[~dropped][0], (attended + 2 * branch)[0])


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_config_round_trip_through_json_is_exact(preset):
    config = PRESETS[preset]()
    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "unknown keys"),
        ({"width": "64"}, "ModelConfig.width"),
        ({"width": 63}, "even number"),
        ({"norm": "layer"}, "'layer', allowed batch, group"),
        ({"stem_width": 17}, "17 channels, expected a multiple of 8"),
        ({"stages": []}, "stages has 0 entries"),
        ({"stages": [{"width": 0, "blocks": 1, "stride": 1}]}, "stages.width is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"min_std": 0.0}, "min_std is 0.0"),
        ({"modes": -1}, "modes is -1"),
        ({"position_base": 1.0}, "above 1"),
    ],
)
def test_a_wrong_config_is_rejected(change, message):
    with pytest.raises(SpecError, match=message):
        ModelConfig.from_json(json.dumps({**json.loads(small().to_json()), **change}))


def test_stages_determine_the_resolution_of_the_heatmaps():
    config = dataclasses.replace(
        small(), stem_stride=2, stem_pool=True, stages=(ResNetStage(8, 1, 1), ResNetStage(8, 1, 2))
    )
    encoder = Policy(config, SPEC).image_encoders[0]
    seen = []
    encoder.heatmaps.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    encoder(torch.rand(1, 1, 3, 64, 64), torch.rand(1, 384))
    assert seen == [(1, small().keypoints, 8, 8)]
