"""Image encoder whose convolutions OpenVINO computes, for acting on a CPU.

The rest of the encoder is small and sensitive to rounding, and remains torch's. The compiled encoder is compared with
torch's before it is used: a processor or a version may have a defect.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from m2distill_policy.errors import UserError
from m2distill_policy.models.image_encoder import ImageEncoder, spatial_softmax
from m2distill_policy.models.onnx_export import convolutions_to_onnx

PRECISION_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of a token, relative to the largest; bfloat16 has 8 bits


class OpenVinoEncoder(nn.Module):
    """Replacement of an ImageEncoder for one image at a time.

    Args:
        encoder: The encoder; its weights are copied.
        height: Rows of the images.
        width: Columns of the images.
        text_width: Width of the sentence embedding.
        dtype: Type of the convolutions' arithmetic.

    Raises:
        UserError: OpenVINO or onnx is not installed, or the result differs from torch's.
    """

    def __init__(self, encoder: ImageEncoder, height: int, width: int, text_width: int, dtype: torch.dtype):
        super().__init__()
        core = _core()
        self.project = encoder.project
        compiled = core.compile_model(
            core.read_model(convolutions_to_onnx(encoder, height, width, text_width)),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": PRECISION_HINTS[dtype],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            },
        )
        self._request = compiled.create_infer_request()
        self._compare(encoder, height, width, text_width, dtype)

    def forward(self, images_11CHW: Tensor, text_1L: Tensor) -> Tensor:
        """(1, 1, 3, H, W) float32 in [0, 1] and text (1, L) -> tokens (1, 1, D) float32."""
        inputs = {"image": images_11CHW[0].contiguous().numpy(), "text": text_1L.numpy()}
        heatmaps = torch.from_numpy(self._request.infer(inputs, share_inputs=True)["heatmaps"])
        with torch.autocast("cpu", enabled=False):
            return self.project(spatial_softmax(heatmaps.float()))[None]

    @torch.inference_mode()
    def _compare(self, encoder: ImageEncoder, height: int, width: int, text_width: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            image = torch.rand(1, 1, 3, height, width, generator=generator)
            text = torch.randn(1, text_width, generator=generator) / text_width**0.5
            expected, found = encoder.eval()(image, text), self(image, text)
            difference = ((found - expected).abs().max() / expected.abs().max()).item()
            if not difference <= TOLERANCE[dtype]:
                raise UserError(
                    f"OpenVINO's image tokens differ from torch's by {difference:.2g} of the largest, allowed "
                    f"{TOLERANCE[dtype]}; set inference_backend to torch"
                )


@functools.cache
def _core() -> Any:
    """Return the OpenVINO core of this process, which is never freed. Raises UserError.

    On processors with AMX a core gives its thread a larger stack for signal handlers, and frees it when it is freed
    itself. Of two cores the older one leaves the thread with a freed stack, and the next signal, such as Ctrl-C, is a
    segmentation fault (OpenVINO 2026.4).
    """
    try:
        import openvino
    except ImportError:
        raise UserError(
            "inference_backend openvino needs the Python packages openvino and onnx; install them with pip install "
            "'m2distill-policy[openvino]', or set inference_backend to torch"
        ) from None
    return openvino.Core()
