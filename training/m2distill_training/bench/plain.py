"""The plain path: LIBERO's training step and reader, put together from the libraries that LIBERO uses.

float32, eager, images NCHW, torch's default AdamW, LIBERO's augmentation (torchvision's ColorJitter sample by sample,
robomimic's CropRandomizer) and robomimic's SequenceDataset with LIBERO's settings. The network has our layers, so that
both paths compute the same function. Letters: B batch, T steps, V views, C channels, H W pixels, L text width, D token
width.
"""

import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.errors import DataError
from m2distill_policy.language.torchvision_workaround import patch_torchvision
from m2distill_policy.models import Batch, Policy
from m2distill_policy.models.image_encoder import ImageEncoder, spatial_softmax
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import AugmentConfig, TrainConfig
from m2distill_training.losses.bc import bc_loss

patch_torchvision()
with redirect_stdout(sys.stderr):  # robomimic greets on import, and what comes on stdout here is the result
    from robomimic.models.base_nets import CropRandomizer
    from robomimic.utils import obs_utils
    from robomimic.utils.dataset import SequenceDataset
from torchvision.transforms import ColorJitter  # noqa: E402  (after the workaround)

LOW_DIM_KEYS = ("gripper_states", "joint_states")


class PlainEncoder(ImageEncoder):
    """Image encoder with the same layers, in torch's default memory format."""

    def forward(self, images_BTCHW: Tensor, text_BL: Tensor) -> Tensor:
        """Return tokens (B, T, D) of images (B, T, 3, H, W) float32 in [0, 1] and text (B, L)."""
        h = self.pool(F.relu(self.norm(self.conv(images_BTCHW.flatten(0, 1)))))
        for block in self.blocks:
            h = block(h, text_BL)
        return self.project(spatial_softmax(self.heatmaps(h))).unflatten(0, images_BTCHW.shape[:2])


def plain_policy(config: TrainConfig, spec: PolicySpec) -> Policy:
    policy = Policy(config.model, spec)
    policy.image_encoders = nn.ModuleList(PlainEncoder(config.model, spec.text_width) for _ in spec.cameras)
    return policy


def plain_augment(images: dict[str, Tensor], config: AugmentConfig) -> dict[str, Tensor]:
    """Augment {camera: (B, T, 3, H, W) float32 in [0, 1]}, with one change per sample for its views and frames."""
    x = plain_colors(torch.cat(tuple(images.values()), 1), config)  # (B, V*T, 3, H, W)
    channels, (H, W), pad = x.shape[1] * x.shape[2], x.shape[3:], config.crop_pad_px
    crop = CropRandomizer((channels, H + 2 * pad, W + 2 * pad), H, W)
    cut = crop.forward_in(F.pad(x.flatten(1, 2), (pad,) * 4, mode="replicate"))  # (B, V*T*3, H, W)
    return dict(zip(images, cut.view(x.shape).chunk(len(images), 1), strict=True))


def plain_colors(x: Tensor, config: AugmentConfig) -> Tensor:
    """Change colours of (B, T, 3, H, W) float32 in [0, 1], the first half of plain_augment."""
    jitter = ColorJitter(*(config.color,) * 4)
    return torch.cat([jitter(one) if torch.rand(()) < config.color_probability else one for one in x.split(1)])


class PlainTrainer:
    def __init__(self, config: TrainConfig, spec: PolicySpec):
        self.config, o = config, config.optim
        torch.manual_seed(config.seed)
        self.policy = plain_policy(config, spec).train()
        self.optimiser = torch.optim.AdamW(
            self.policy.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay
        )

    def step(self, inputs: Batch, action_BTA: Tensor) -> float:
        """Make one gradient step of behaviour cloning on a batch of the reader and return the loss."""
        self.optimiser.zero_grad()
        images = plain_augment(inputs["images"], self.config.augment)
        loss = bc_loss(self.policy({**inputs, "images": images}).dist, action_BTA)
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.optim.grad_clip)
        self.optimiser.step()
        return loss.item()


def plain_dataset(path: Path, length: int) -> SequenceDataset:
    """Return the windows of one file as LIBERO reads them: images from the file, the rest from memory.

    Raises DataError.
    """
    modalities = {"rgb": [camera.hdf5_key for camera in CAMERAS], "low_dim": list(LOW_DIM_KEYS)}
    with redirect_stdout(sys.stderr):
        obs_utils.initialize_obs_utils_with_obs_specs({"obs": modalities})
        try:
            return SequenceDataset(
                hdf5_path=str(path),
                obs_keys=(*modalities["rgb"], *LOW_DIM_KEYS),
                dataset_keys=("actions",),
                seq_length=length,
                load_next_obs=False,
                hdf5_cache_mode="low_dim",
                hdf5_use_swmr=False,
            )
        except KeyError as error:
            raise DataError(
                f"{path}: robomimic cannot read it ({error.args[0]}); expected num_samples on every demo "
                "and LIBERO's keys"
            ) from None


def plain_batches(dataset: SequenceDataset, batch_size: int, batches: int) -> DataLoader:
    """Return that many batches of random windows, collated in this process."""
    generator = torch.Generator().manual_seed(0)
    sampler = RandomSampler(dataset, replacement=True, num_samples=batches * batch_size, generator=generator)
    return DataLoader(dataset, batch_size, sampler=sampler)
