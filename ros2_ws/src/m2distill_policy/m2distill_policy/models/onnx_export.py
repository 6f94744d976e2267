"""Export of a policy to ONNX, for runtimes other than torch.

Two graphs share the work of a control step. The encoder turns one observation into its tokens. The decoder turns the
tokens of up to `history` steps into mixtures, one for each step. A step does not depend on later ones, so the unused
last steps of a short history may hold anything.

Both have fixed shapes with one sample. Letters: see models/policy.py.
"""

import io
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from m2distill_policy.errors import UserError
from m2distill_policy.models.image_encoder import ImageEncoder
from m2distill_policy.models.policy import Batch, Policy

OPSET = 17


class _Convolutions(nn.Module):
    def __init__(self, encoder: ImageEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, image_1CHW: Tensor, text_1L: Tensor) -> Tensor:
        return self.encoder.convolve(image_1CHW, text_1L)


class _Encoder(nn.Module):
    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, joint_1J: Tensor, gripper_1G: Tensor, text_1L: Tensor, *images_1CHW: Tensor) -> Tensor:
        images = {c.name: x[None] for c, x in zip(self.policy.spec.cameras, images_1CHW, strict=True)}
        batch = Batch(images=images, joint=joint_1J[None], gripper=gripper_1G[None], text=text_1L)
        return self.policy.encode_step(batch)[0]


class _Decoder(nn.Module):
    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, tokens_1TND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixture = self.policy.decode_all(tokens_1TND)
        parts = mixture.component_distribution
        return mixture.mixture_distribution.probs, parts.mean, parts.stddev


def encoder_to_onnx(policy: Policy) -> bytes:
    """Return the encoder of one step as ONNX.

    Inputs: joint (1, J) rad, gripper (1, G) m, text (1, L), and for each camera its image (1, 3, H, W) in [0, 1], in
    the model's orientation, by the camera's name. Output: tokens (1, N, D).
    """
    spec = policy.spec
    examples = [
        torch.zeros(1, len(spec.joint_names)),
        torch.zeros(1, len(spec.gripper_joint_names)),
        torch.zeros(1, spec.text_width),
        *(torch.zeros(1, 3, camera.height, camera.width) for camera in spec.cameras),
    ]
    names = ["joint", "gripper", "text", *(camera.name for camera in spec.cameras)]
    return _to_onnx(_Encoder(policy), examples, names, ["tokens"])


def decoder_to_onnx(policy: Policy) -> bytes:
    """Return the decoder as ONNX.

    Input: tokens (1, T, N, D), T the history, oldest first. Outputs: weights (1, T, K), means and stds (1, T, K, A);
    row t is the mixture of step t.
    """
    tokens = len(policy.spec.cameras) + 3
    example = torch.zeros(1, policy.spec.history, tokens, policy.config.width)
    return _to_onnx(_Decoder(policy), [example], ["tokens"], ["weights", "means", "stds"])


def convolutions_to_onnx(encoder: ImageEncoder, height: int, width: int, text_width: int) -> bytes:
    """Return `ImageEncoder.convolve` as ONNX.

    Inputs: image (1, 3, H, W), text (1, L). Output: heatmaps (1, P, H', W').
    """
    examples = [torch.zeros(1, 3, height, width), torch.zeros(1, text_width)]
    return _to_onnx(_Convolutions(encoder), examples, ["image", "text"], ["heatmaps"])


def _to_onnx(module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    try:
        import onnx  # noqa: F401  # the exporter uses it
    except ImportError:
        raise UserError("the export to ONNX needs the Python package onnx; install it with pip install onnx") from None
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of traced shapes, which are fixed here, and of the newer exporter
        torch.onnx.export(
            module.eval(),
            tuple(examples),
            file,  # type: ignore[arg-type]  # the stub knows paths only
            dynamo=False,  # the newer exporter needs onnxscript
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
        )
    module.eval()  # the exporter restores the mode that it found part by part
    return file.getvalue()
