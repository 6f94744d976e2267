"""ModelConfig: every size of the network. With a PolicySpec it determines the shape of every weight."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from m2distill_policy.errors import SpecError
from m2distill_policy.spec import strict_from_json

NORMS = ("batch", "group")
GROUP_CHANNELS = 8  # channels that a group norm takes together; fewer make one group
# Far beyond what anybody trains; a file that asks for more would only keep the reader busy.
MOST = {
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
MOST_STAGES, MOST_OF_STAGE = 8, {"width": 4096, "blocks": 32, "stride": 64}


@dataclass(frozen=True)
class StageConfig:
    """Residual blocks of one width; the first of them applies the stride."""

    width: int  # channels
    blocks: int  # residual blocks
    stride: int  # of the first of them


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the image encoders, the temporal transformer and the mixture head.

    Pixels shrink by stem_stride, by 2 more with stem_pool, then by every stage's stride; the spatial softmax finds its
    keypoints on what is left.
    """

    stem_width: int  # channels of the first convolution
    stem_kernel: int  # its side, px
    stem_stride: int  # its stride, px
    stem_pool: bool  # 3x3/2 maximum after the first convolution
    stages: tuple[StageConfig, ...]
    norm: str  # "batch", or "group": no statistics over the batch, so tasks mixed in one cannot disturb each other
    keypoints: int  # per view
    gripper_gain: float  # multiplies finger positions (m) before their projection
    width: int  # D, of every token and latent
    layers: int  # of the transformer
    heads: int  # of its attention
    head_width: int  # per attention head
    mlp_width: int  # hidden units of the transformer's MLPs
    dropout: float  # in the transformer; also the DropPath rate of its MLP branches
    position_base: float  # of the sinusoidal time code
    mixture_hidden: int  # hidden units of the mixture head
    modes: int  # K, of the mixture
    min_std: float  # floor of every standard deviation, in action units

    def __post_init__(self):
        _positive(self, MOST, "model")
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise SpecError(f"model.stages has {len(self.stages)} entries, allowed 1 to {MOST_STAGES}")
        for stage in self.stages:
            _positive(stage, MOST_OF_STAGE, "model.stages")
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

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> "ModelConfig":
        """Strict inverse of `to_json`; raises SpecError."""
        return strict_from_json(ModelConfig, text)


def _positive(config: "StageConfig | ModelConfig", most: Mapping[str, float], where: str) -> None:
    for name, limit in most.items():
        if not 0 < (value := getattr(config, name)) <= limit:
            raise SpecError(f"{where}.{name} is {value}, allowed above 0 up to {limit:g}")


def libero() -> ModelConfig:
    """LIBERO's ResNet-T (configs/policy/bc_transformer_policy.yaml): 5,383,307 parameters with `spec.libero_spec()`."""
    return ModelConfig(
        stem_width=64,
        stem_kernel=7,
        stem_stride=2,
        stem_pool=True,
        stages=(StageConfig(64, 2, 1), StageConfig(128, 2, 2)),
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
    """For images of 64 px, learned by two CPU cores in minutes. Keypoints are found on 16 x 16 cells.

    Of the few shapes tried, the one that learned most per second of one core on LIBERO-OBJECT. Without dropout: a
    training of minutes is far from fitting its demonstrations too well.
    """
    return ModelConfig(
        stem_width=16,
        stem_kernel=7,
        stem_stride=4,
        stem_pool=False,
        stages=(StageConfig(16, 1, 1), StageConfig(32, 1, 1)),
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
        min_std=0.03,
    )
