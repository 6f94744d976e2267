"""ModelConfig: every size of the network. Together with a PolicySpec it determines the shape of every weight."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from m2distill_policy.errors import SpecError
from m2distill_policy.spec import ADDED, strict_from_json
from m2distill_policy.utils.schema import with_schema

NORMS = ("batch", "group")
GROUP_CHANNELS = 8  # channels per group of a group norm; fewer channels form one group
# Upper bounds, far above any model that is trained here; they stop a wrong file from allocating memory.
MAX_SIZES = {
    "stem_width": 4096,
    "stem_kernel": 63,
    "stem_stride": 64,
    "keypoints": 4096,
    "width": 8192,
    "layers": 64,
    "heads": 128,
    "head_width": 1024,
    "mlp_width": 65536,
    "mixture_hidden": 65536,
    "modes": 1024,
    "min_std": 1.0,
    "gripper_gain": 1e6,
}
MAX_DECODERS, MAX_INSTRUCTIONS = 256, 4096
MAX_STAGES, MAX_STAGE_SIZES = 8, {"width": 4096, "blocks": 32, "stride": 64}


@dataclass(frozen=True)
class ResNetStage:
    """Residual blocks of one width. The first block applies the stride."""

    width: int  # channels
    blocks: int  # residual blocks
    stride: int  # of the first block


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the image encoders, the temporal transformer and the mixture head.

    The resolution is divided by `stem_stride`, by 2 with `stem_pool`, then by the stride of every stage. The spatial
    softmax finds its keypoints on the remaining cells.
    """

    stem_width: int  # channels of the first convolution
    stem_kernel: int  # side of its kernel, px
    stem_stride: int  # stride of the first convolution, px
    stem_pool: bool  # 3x3 maximum pooling with stride 2 after the first convolution
    stages: tuple[ResNetStage, ...]
    norm: str  # "batch", or "group", which has no statistics over the batch that mixed tasks could disturb
    keypoints: int  # per view
    gripper_gain: float  # multiplies finger positions (m) before their projection
    width: int  # D, of every token and latent
    layers: int  # transformer layers
    heads: int  # attention heads per layer
    head_width: int  # per attention head
    mlp_width: int  # hidden units of the transformer's MLPs
    dropout: float  # in the transformer; also the DropPath rate of its MLP branches
    position_base: float  # of the sinusoidal time code
    mixture_hidden: int  # hidden units of the mixture head
    modes: int  # K, components of the mixture
    min_std: float  # floor of every standard deviation, in action units
    # Instructions of each decoder (decoder.py), the first included; () if one transformer and head serve all of them.
    decoders: tuple[int, ...] = dataclasses.field(default=(), metadata={ADDED: True})
    own_encoders: bool = dataclasses.field(default=False, metadata={ADDED: True})  # each decoder has encoders

    def __post_init__(self):
        _check_sizes(self, MAX_SIZES, "model")
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise SpecError(f"model.stages has {len(self.stages)} entries, allowed 1 to {MAX_STAGES}")
        for stage in self.stages:
            _check_sizes(stage, MAX_STAGE_SIZES, "model.stages")
        if self.norm not in NORMS:
            raise SpecError(f"model.norm is {self.norm!r}, allowed {', '.join(NORMS)}")
        for channels in (self.stem_width, *(stage.width for stage in self.stages)):
            if self.norm == "group" and channels > GROUP_CHANNELS and channels % GROUP_CHANNELS:
                raise SpecError(
                    f"model has a convolution of {channels} channels, expected a multiple of "
                    f"{GROUP_CHANNELS} (or fewer) with norm 'group'"
                )
        if self.width % 2:
            raise SpecError(f"model.width is {self.width}, expected an even number (half sines, half cosines)")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"model.dropout is {self.dropout}, allowed 0 up to but not including 1")
        if not self.position_base > 1:
            raise SpecError(f"model.position_base is {self.position_base}, expected a number above 1")
        if len(self.decoders) == 1 or any(not 0 < n <= MAX_INSTRUCTIONS for n in self.decoders):
            raise SpecError(
                f"model.decoders is {self.decoders}, expected none, or two or more numbers from 1 to {MAX_INSTRUCTIONS}"
            )
        if self.own_encoders and not self.decoders:
            raise SpecError("model.own_encoders is true without model.decoders")
        if len(self.decoders) > MAX_DECODERS:
            raise SpecError(f"model.decoders has {len(self.decoders)} entries, allowed up to {MAX_DECODERS}")

    def to_json(self) -> str:
        """Return the configuration as JSON. Without decoders it is what versions before them wrote."""
        values = dataclasses.asdict(self)
        if not self.decoders:
            del values["decoders"], values["own_encoders"]
        return json.dumps(with_schema(values), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "ModelConfig":
        """Return the configuration that `to_json` wrote. Raises SpecError for anything else."""
        return strict_from_json(ModelConfig, text)


def _check_sizes(config: "ResNetStage | ModelConfig", limits: Mapping[str, float], where: str) -> None:
    for name, limit in limits.items():
        if not 0 < (value := getattr(config, name)) <= limit:
            raise SpecError(f"{where}.{name} is {value}, allowed above 0 up to {limit:g}")


def libero() -> ModelConfig:
    """Return LIBERO's ResNet-T (configs/policy/bc_transformer_policy.yaml).

    It has 5,383,307 parameters with `spec.libero_spec()`.
    """
    return ModelConfig(
        stem_width=64,
        stem_kernel=7,
        stem_stride=2,
        stem_pool=True,
        stages=(ResNetStage(64, 2, 1), ResNetStage(128, 2, 2)),
        norm="batch",
        keypoints=32,
        gripper_gain=1.0,
        width=64,
        layers=4,
        heads=6,
        head_width=64,
        mlp_width=256,
        dropout=0.1,
        position_base=10.0,
        mixture_hidden=1024,
        modes=5,
        min_std=1e-4,
    )


def small() -> ModelConfig:
    """Return a network for images of 64 px that trains on two CPU cores in minutes, with keypoints on 16 x 16 cells.

    Of the few sizes tried, it learned fastest per second of one core on LIBERO-OBJECT. It has no dropout, because a
    training of minutes does not overfit its demonstrations.
    """
    return ModelConfig(
        stem_width=16,
        stem_kernel=7,
        stem_stride=4,
        stem_pool=False,
        stages=(ResNetStage(16, 1, 1), ResNetStage(32, 1, 1)),
        norm="group",
        keypoints=32,
        gripper_gain=25.0,
        width=64,
        layers=2,
        heads=4,
        head_width=16,
        mlp_width=128,
        dropout=0.0,
        position_base=10.0,
        mixture_hidden=256,
        modes=5,
        min_std=0.1,
    )
