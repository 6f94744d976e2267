import pytest
import torch

from m2distill_training.bench.plain import plain_augment, plain_colors
from m2distill_training.config import AugmentConfig
from m2distill_training.data.sample_rng import SampleRng
from m2distill_training.engine.augment import augment


def random_images(B=3, T=2, H=8, W=8):
    g = torch.Generator().manual_seed(1)
    return {camera: torch.rand(B, T, 3, H, W, generator=g) for camera in ("agentview", "wrist")}


def test_switched_off_changes_nothing():
    images = random_images()
    out = augment(
        images, AugmentConfig(color=0.0, color_probability=0.9, crop_pad_px=0), SampleRng.of_whole_batch(0, 3)
    )
    assert all(torch.equal(out[name], images[name]) for name in images)


def test_one_shift_per_sample_shared_by_views_and_frames():
    """An image that holds its own pixel's row and column shows how far it was shifted."""
    B, T, H, W, pad = 40, 3, 8, 8, 2
    grid = torch.stack([torch.arange(H)[:, None].expand(H, W), torch.arange(W).expand(H, W), torch.zeros(H, W)])
    image = grid.float().expand(B, T, 3, H, W)
    out = augment({"agentview": image, "wrist": image}, AugmentConfig(0.0, 0.0, pad), SampleRng.of_whole_batch(0, B))
    assert torch.equal(out["agentview"], out["wrist"])
    middle = out["agentview"][:, :, :2, 4, 4]  # (B, T, 2), the row and column that came to (4, 4)
    assert (middle == middle[:, :1]).all()
    shifts = middle[:, 0] - 4
    assert set(shifts.flatten().tolist()) == {-2, -1, 0, 1}
    row, column = (int(s) for s in shifts[0])
    expected_rows = (torch.arange(H) + row).clamp(0, H - 1)
    expected_columns = (torch.arange(W) + column).clamp(0, W - 1)
    assert torch.equal(out["agentview"][0, 0, 0, :, 0], expected_rows.float())
    assert torch.equal(out["agentview"][0, 0, 1, 0], expected_columns.float())


def test_color_keeps_the_range_and_leaves_the_others_of_the_batch_alone():
    images = random_images(B=400, T=1, H=2, W=2)
    out = augment(
        images, AugmentConfig(color=0.3, color_probability=0.5, crop_pad_px=0), SampleRng.of_whole_batch(0, 400)
    )
    assert all(x.min() >= 0 and x.max() <= 1 for x in out.values())
    kept = {name: (out[name] - images[name]).abs().flatten(1).amax(1) < 1e-4 for name in images}
    assert torch.equal(kept["agentview"], kept["wrist"])  # one draw for both views
    assert 150 < kept["wrist"].sum() < 250  # binomial(400, 0.5), standard deviation 10


@pytest.mark.parametrize("gray", [0.0, 0.5])
def test_gray_stays_gray(gray):
    """Saturation and hue turn about the gray axis."""
    image = torch.full((50, 1, 3, 4, 4), gray)
    out = augment({"wrist": image}, AugmentConfig(0.3, 1.0, 0), SampleRng.of_whole_batch(0, 50))["wrist"]
    assert (out - out[:, :, :1]).abs().max() < 1e-5
    assert out.flatten(1).mean(1).std() > (0.03 if gray else -1)  # brightness differs from sample to sample


@pytest.mark.slow
@pytest.mark.parametrize("rgb", [(0.5, 0.5, 0.5), (0.6, 0.4, 0.3), (0.2, 0.5, 0.7)])
def test_colours_are_spread_as_liberos_are(rgb):
    """2000 draws of each, of an image with a bright and a dark half, so that contrast acts. Where ours turns hue in
    YIQ and clamps once, torchvision turns it in HSV and clamps in between: 0.03 of the range are allowed, for the mean
    as for the standard deviation."""
    n = 2000
    image = torch.tensor(rgb)[:, None, None].repeat(1, 2, 2)
    image[:, 0] += 0.2
    image[:, 1] -= 0.2
    images = {"wrist": image.expand(n, 1, 3, 2, 2)}
    config = AugmentConfig(color=0.3, color_probability=0.9, crop_pad_px=0)
    torch.manual_seed(0)
    ours, theirs = (
        augment(images, config, SampleRng.of_whole_batch(0, n))["wrist"],
        plain_colors(images["wrist"], config),
    )
    for moment in (torch.mean, torch.std):
        a, b = moment(ours, 0), moment(theirs, 0)
        assert (a - b).abs().max() < 0.03, (a, b)


def test_crops_are_spread_as_liberos_are():
    n, pad = 3000, 2
    grid = torch.arange(8).float()[:, None].expand(8, 8).expand(n, 1, 3, 8, 8)
    config = AugmentConfig(0.0, 0.0, pad)
    torch.manual_seed(0)
    ours, theirs = (
        augment({"wrist": grid}, config, SampleRng.of_whole_batch(0, n)),
        plain_augment({"wrist": grid}, config),
    )
    for images in (ours, theirs):
        rows = images["wrist"][:, 0, 0, 4, 4].long() - 4
        counts = torch.bincount(rows + pad, minlength=2 * pad + 1)
        assert counts[-1] == 0
        assert (counts[:-1] - n / 4).abs().max() < 5 * (n / 4 * 3 / 4) ** 0.5  # binomial
