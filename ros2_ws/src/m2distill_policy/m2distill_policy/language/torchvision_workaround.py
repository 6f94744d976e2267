"""Make torchvision importable beside a CPU-only torch.

PyPI's torchvision is built for CUDA torch. Beside a CPU-only torch its extension cannot be loaded and its operators are
not declared. Importing it then fails with "operator torchvision::nms does not exist", also through transformers' BERT
or LIBERO's networks. Declaring the two operators for which the import registers fake kernels is enough; calling one of
them still fails, and no code here does.
"""

import importlib.util
import sys
from pathlib import Path

import torch

_declarations: list[torch.library.Library] = []  # a declaration lives as long as its Library object


def patch_torchvision() -> None:
    """Declare the missing operators. Call it before the first import of torchvision.

    Does nothing if torchvision is absent, works, or has been patched already.
    """
    if "torchvision" in sys.modules or _declarations:
        return
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        for extension in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(str(extension))
        return
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declarations.append(library)
