"""Import of LIBERO's own checkpoints (`task*_model.pth`).

Such a file is a pickle of {state_dict, cfg (an EasyDict), previous_masks}. It is read with torch's restricted
unpickler, which only builds tensors and plain containers; EasyDict is read as an ordered dict.
"""

import dataclasses
import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from m2distill_policy import cameras as table
from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.errors import CheckpointError
from m2distill_policy.language.text_encoder import BERT, WIDTHS
from m2distill_policy.models import ModelConfig, Policy, libero
from m2distill_policy.models.transformer import time_frequencies
from m2distill_policy.spec import CameraSpec, PolicySpec

CAMERAS = {camera.hdf5_key: camera.name for camera in table.CAMERAS}  # LIBERO's name -> ours, in encoder order
# What this network can express of LIBERO's configuration; anything else is rejected, not approximated.
REQUIRED = {
    "policy.policy_type": "BCTransformerPolicy",
    "policy.extra_num_layers": 0,
    "policy.image_encoder.network": "ResnetEncoder",
    "policy.image_encoder.network_kwargs.language_fusion": "film",
    "policy.image_encoder.network_kwargs.remove_layer_num": 4,
    "policy.image_encoder.network_kwargs.no_stride": False,
    "policy.language_encoder.network": "MLPEncoder",
    "policy.language_encoder.network_kwargs.num_layers": 1,
    "policy.temporal_position_encoding.network_kwargs.factor_ratio": None,
    "policy.policy_head.network": "GMMHead",
    "policy.policy_head.network_kwargs.num_layers": 2,
    "policy.policy_head.network_kwargs.activation": "softplus",
    "data.obs.modality.rgb": list(CAMERAS),
    "data.use_joint": True,
    "data.use_gripper": True,
    "data.use_ee": False,
    "task_embedding_format": "bert",
}


def import_libero_checkpoint(path: Path, out: Path, instructions: Mapping[str, np.ndarray]) -> str:
    """Write LIBERO's checkpoint `path` as ours to `out` and return its id.

    Args:
        path: LIBERO's file.
        out: folder of the new checkpoint; unchanged after an error.
        instructions: each instruction that the policy must follow, with its bert-base-cased embedding (768,) float32,
            because the file holds none.

    Raises:
        CheckpointError: the file is damaged, or its network cannot be expressed.
    """
    path = Path(path)
    contents = _read(path)
    if contents["previous_masks"] is not None:
        raise CheckpointError(f"{path} was trained with PackNet: its weights mean something under a task's mask only")
    config, spec = _describe(contents["cfg"], path)
    state_dict = convert_state_dict(contents["state_dict"], config, spec, str(path))
    metrics = {
        "imported_from": path.name,
        "libero_benchmark": contents["cfg"].get("benchmark_name"),
        "libero_algorithm": _get(contents["cfg"], "lifelong.algo", path),
    }
    return save_checkpoint(out, Checkpoint(spec, config, state_dict, dict(instructions), metrics))


def convert_state_dict(
    theirs: Mapping[str, Tensor], config: ModelConfig, spec: PolicySpec, where: str
) -> dict[str, Tensor]:
    """Return the weights under our names.

    Every tensor of LIBERO is used or, if it is a constant or a repetition, checked. `save_checkpoint` checks the
    shapes.
    Raises CheckpointError.
    """
    with torch.device("meta"):
        ours = Policy(config, spec).state_dict()
    modules = module_names(config, len(spec.cameras))
    names = {}
    for name in ours:
        module, _, leaf = name.rpartition(".")
        names[name] = f"{modules[module]}.{leaf}"
    constants = _constants(theirs, config, spec)
    missing = sorted(set(names.values()) - theirs.keys())
    unknown = sorted(theirs.keys() - set(names.values()) - constants.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{where} holds other weights than its configuration requires: missing {missing[:3]}, unknown {unknown[:3]}"
        )
    for name, expected in constants.items():
        if name not in theirs or theirs[name].shape != expected.shape or not torch.allclose(theirs[name], expected):
            raise CheckpointError(f"{where}: {name} is not what LIBERO's configuration makes it")
    return {name: theirs[libero_name] for name, libero_name in names.items()}


def module_names(config: ModelConfig, views: int) -> dict[str, str]:
    """Return {our module: LIBERO's module}."""
    names = {
        "text": "language_encoder.projection.0",
        "joint": "extra_encoder.encoders.0.0",
        "gripper": "extra_encoder.encoders.1.0",
    }
    for view in range(views):
        ours, theirs = f"image_encoders.{view}", f"encoders.{view}"
        names |= {
            f"{ours}.conv": f"{theirs}.resnet18_base.0",
            f"{ours}.norm": f"{theirs}.resnet18_base.1",
            f"{ours}.heatmaps": f"{theirs}.projection_layer.spatial_softmax._spatial_conv",
            f"{ours}.project": f"{theirs}.projection_layer.projection",
        }
        for i in range(sum(stage.blocks for stage in config.stages)):
            block = f"{theirs}.block_{i + 1}"
            names |= {
                f"{ours}.blocks.{i}.{mine}": f"{block}.{other}"
                for mine, other in {
                    "conv1": "conv1",
                    "norm1": "bn1",
                    "conv2": "conv2",
                    "norm2": "bn2",
                    "shortcut.0": "downsample.0",
                    "shortcut.1": "downsample.1",
                }.items()
            }
            names[f"{ours}.blocks.{i}.film"] = f"{theirs}.lang_proj{i + 1}"
    for i in range(config.layers):
        ours, theirs = f"transformer.layers.{i}", f"temporal_transformer.layers.{i}"
        names |= {
            f"{ours}.attention_norm": f"{theirs}.0.norm",
            f"{ours}.attention.qkv": f"{theirs}.1.qkv",
            f"{ours}.attention.out": f"{theirs}.1.output_layer.0",
            f"{ours}.mlp_norm": f"{theirs}.2.norm",
            f"{ours}.mlp.0": f"{theirs}.3.net.0",
            f"{ours}.mlp.3": f"{theirs}.3.net.3",
        }
    names |= {f"head.shared.{i}": f"policy_head.share.{i}" for i in (0, 2, 4)}
    return names | {
        "head.mean": "policy_head.mean_layer",
        "head.std": "policy_head.logstd_layer",
        "head.logits": "policy_head.logits_layer",
    }


def _constants(theirs: Mapping[str, Tensor], config: ModelConfig, spec: PolicySpec) -> dict[str, Tensor]:
    """Return the entries of LIBERO's state_dict that hold nothing learned.

    They are positions, frequencies, and the gripper's projection under a second name (`proprio_mlp` is the last encoder
    that LIBERO creates).
    """
    constants = {"temporal_position_encoding_fn.inv_freq": time_frequencies(config.width, config.position_base)}
    for view, camera in enumerate(spec.cameras):
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, camera.height // 8), torch.linspace(-1, 1, camera.width // 8), indexing="ij"
        )
        softmax = f"encoders.{view}.projection_layer.spatial_softmax"
        constants |= {f"{softmax}.pos_x": rows.reshape(1, -1), f"{softmax}.pos_y": columns.reshape(1, -1)}
    for leaf in ("weight", "bias"):
        original = theirs.get(f"extra_encoder.encoders.1.0.{leaf}")
        if original is not None:
            constants[f"extra_encoder.proprio_mlp.0.{leaf}"] = original
    return constants


def _describe(cfg: Mapping[str, Any], path: Path) -> tuple[ModelConfig, PolicySpec]:
    """LIBERO's configuration as ours. Raises CheckpointError for one that this network cannot express."""
    for key, expected in REQUIRED.items():
        if (got := _get(cfg, key, path)) != expected:
            raise CheckpointError(f"{path} has {key} = {got!r}, only {expected!r} can be imported")

    def number(key: str) -> Any:
        value = _get(cfg, key, path)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise CheckpointError(f"{path} has {key} = {value!r}, expected a finite number")
        return value

    def whole(key: str) -> int:
        value = number(key)
        if value != int(value):
            raise CheckpointError(f"{path} has {key} = {value!r}, expected a whole number")
        return int(value)

    head = "policy.policy_head.network_kwargs"
    config = dataclasses.replace(
        libero(),
        width=whole("policy.embed_size"),
        keypoints=whole("policy.embed_size") // 2,
        layers=whole("policy.transformer_num_layers"),
        heads=whole("policy.transformer_num_heads"),
        head_width=whole("policy.transformer_head_output_size"),
        mlp_width=whole("policy.transformer_mlp_hidden_size"),
        dropout=float(number("policy.transformer_dropout")),
        position_base=float(number("policy.temporal_position_encoding.network_kwargs.inv_freq_factor")),
        mixture_hidden=whole(f"{head}.hidden_size"),
        modes=whole(f"{head}.num_modes"),
        min_std=float(number(f"{head}.min_std")),
    )
    cameras = []
    for theirs, ours in CAMERAS.items():
        shape = _get(cfg, f"shape_meta.all_shapes.{theirs}", path)
        sides = shape if isinstance(shape, (list, tuple)) else ()
        if len(sides) != 3 or sides[0] != 3 or not all(type(side) is int for side in sides):
            raise CheckpointError(f"{path} has images {theirs} of shape {shape!r}, expected (3, height, width)")
        cameras.append(CameraSpec(ours, height=shape[1], width=shape[2], upside_down=True))
    return config, PolicySpec(
        tuple(cameras), history=whole("policy.transformer_max_seq_len"), text_encoder=BERT, text_width=WIDTHS[BERT]
    )


def _get(cfg: Mapping[str, Any], key: str, path: Path) -> Any:
    value: Any = cfg
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise CheckpointError(f"{path} is not a LIBERO checkpoint: its configuration lacks {key}")
        value = value[part]
    return value


def _read(path: Path) -> dict[str, Any]:
    """Return the three entries of the file. Raises CheckpointError, also for a pickle of anything but data."""
    if not path.is_file():
        raise CheckpointError(f"no LIBERO checkpoint at {path}")
    try:
        with torch.serialization.safe_globals([(OrderedDict, "easydict.EasyDict")]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about formats that are rejected below
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged or hostile bytes fail in any way; torch's message advises to trust them
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}, which is not plain data" if asked else "damaged, or of another format"
        raise CheckpointError(
            f"{path} is not a LIBERO checkpoint: {reason}; give a task*_model.pth as LIBERO's training writes it"
        ) from None
    expected: dict[str, Any] = {"state_dict": Mapping, "cfg": Mapping, "previous_masks": (Mapping, type(None))}
    for name, kind in expected.items():
        if not isinstance(contents, dict) or not isinstance(contents.get(name), kind):
            raise CheckpointError(f"{path} is not a LIBERO checkpoint: it holds no usable {name!r}")
    for name, tensor in contents["state_dict"].items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path} is not a LIBERO checkpoint: {name} is not a tensor")
    return contents
