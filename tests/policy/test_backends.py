"""Inference backends and ONNX: equal to torch for every preset, and rejected if they are not."""

import copy
import ctypes
import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.errors import UserError
from m2distill_policy.models import Policy, libero, openvino_encoder, small
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.models.onnx_export import decoder_to_onnx
from m2distill_policy.models.openvino_encoder import TOLERANCE, OpenVinoEncoder
from m2distill_policy.models.optimize import optimize_for_inference
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import libero_spec
from m2distill_training.cli import main

openvino = pytest.importorskip("openvino")
pytest.importorskip("onnx")

SS_DISABLE = 2  # of sigaltstack(2)
FILES = ("encoder.onnx", "decoder.onnx", "spec.json", "instructions.safetensors")


@pytest.fixture(scope="module", params=["small", "libero"])
def checkpoint(request) -> Checkpoint:
    """An untrained policy whose batch norms have statistics, as after training."""
    torch.manual_seed(0)
    config = {"small": small, "libero": libero}[request.param]()
    spec = libero_spec(64, history=3, text_encoder="none", text_width=384)
    policy = Policy(config, spec)
    for module in policy.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return Checkpoint(spec, config, policy.state_dict(), {"wave": np.full(384, 0.05, np.float32)})


@pytest.fixture(scope="module")
def observations(checkpoint) -> list[Observation]:
    random = np.random.default_rng(0)
    return [
        Observation(
            {c.name: random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for c in checkpoint.spec.cameras},
            random.normal(size=7).astype(np.float32),
            random.normal(size=2).astype(np.float32),
            stamp_ns=t,
        )
        for t in range(5)
    ]


def actions(checkpoint, observations, **options) -> np.ndarray:
    policy = InferencePolicy(checkpoint, **options)
    policy.set_text(checkpoint.instructions["wave"])
    return np.stack([policy.step(x).action for x in observations])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.01)])
def test_openvino_acts_as_torch(checkpoint, observations, precision, tolerance):
    expected = actions(checkpoint, observations, sampling="mode")
    found = actions(checkpoint, observations, sampling="mode", precision=precision, backend="openvino")
    assert np.abs(found - expected).max() < tolerance
    sampled = [actions(checkpoint, observations, backend=backend) for backend in ("torch", "openvino")]
    assert np.abs(sampled[0] - sampled[1]).max() < 1e-4  # the same draws


def test_an_encoder_that_differs_from_torch_is_rejected(checkpoint, monkeypatch):
    policy = checkpoint.build_policy()
    monkeypatch.setitem(TOLERANCE, torch.float32, 1e-12)
    with pytest.raises(UserError, match=r"differ from torch's by .* allowed 1e-12; set inference_backend to torch"):
        OpenVinoEncoder(policy.image_encoders[0], 64, 64, 384, torch.float32)


def test_a_missing_package_and_an_unknown_backend_are_one_line(checkpoint, monkeypatch):
    with pytest.raises(UserError, match="unknown inference backend 'openvno'; did you mean 'openvino'"):
        InferencePolicy(checkpoint, backend="openvno")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino_encoder, "_core", openvino_encoder._core.__wrapped__)  # the process may have one
    with pytest.raises(UserError, match=r"pip install 'm2distill-policy\[openvino\]', or set inference_backend"):
        InferencePolicy(checkpoint, backend="openvino")


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def test_dropped_policies_leave_a_stack_on_which_signals_can_be_handled(checkpoint):
    """Otherwise Ctrl-C after a swap of checkpoints is a segmentation fault, on processors with AMX."""
    policies = [InferencePolicy(checkpoint, backend="openvino") for _ in range(2)]
    while policies:
        del policies[0]
        gc.collect()
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()]
    mapped = any(int(start, 16) <= (stack.address or 0) < int(end, 16) for start, end in ranges)
    assert mapped or stack.flags & SS_DISABLE


def test_exported_graphs_in_another_runtime_give_the_mixtures_of_every_history(checkpoint, observations, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    assert main.run(["export", "onnx", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "onnx")]) == 0
    folder, spec = tmp_path / "onnx", checkpoint.spec
    assert {x.name for x in folder.iterdir()} == {
        "encoder.onnx",
        "decoder.onnx",
        "spec.json",
        "instructions.safetensors",
    }
    assert json.loads((folder / "spec.json").read_text())["history"] == 3
    text = load_file(folder / "instructions.safetensors")["wave"][None]
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    encoder, decoder = (core.compile_model(folder / name, "CPU", exact) for name in ("encoder.onnx", "decoder.onnx"))
    policy = checkpoint.build_policy().eval()
    tokens = np.full((1, 3, len(spec.cameras) + 3, checkpoint.model_config.width), 7.0, np.float32)
    for t, x in enumerate(observations[:3]):
        images = {name: image.transpose(2, 0, 1)[None] / np.float32(255) for name, image in x.images.items()}
        tokens[:, t] = encoder({"joint": x.joint[None], "gripper": x.gripper[None], "text": text, **images})["tokens"]
        mixtures = decoder({"tokens": tokens})  # later steps hold 7
        window = observations[: t + 1]
        with torch.no_grad():
            expected = policy(
                to_model_input(
                    {c.name: np.stack([o.images[c.name] for o in window])[None] for c in spec.cameras},
                    np.stack([o.joint for o in window])[None],
                    np.stack([o.gripper for o in window])[None],
                    text,
                )
            ).dist
        parts = expected.component_distribution
        for name, value in (
            ("weights", expected.mixture_distribution.probs),
            ("means", parts.mean),
            ("stds", parts.stddev),
        ):
            np.testing.assert_allclose(mixtures[name][0, t], value[0, t].numpy(), atol=1e-5)


def test_an_export_does_not_replace_a_file(checkpoint, tmp_path, capsys):
    save_checkpoint(tmp_path / "checkpoint", checkpoint)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "notes.txt").write_text("mine")
    assert main.run(["export", "onnx", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "onnx")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [x.name for x in (tmp_path / "onnx").iterdir()] == ["notes.txt"]


def test_an_exported_graph_chooses_the_decoder_of_the_instruction(checkpoint, tmp_path):
    policy = checkpoint.build_policy().eval()
    texts = torch.randn(2, policy.spec.text_width)
    policy.add_decoder(texts[:1], texts[1:], 0)
    torch.nn.init.normal_(policy.decoders[0].head.mean.weight, std=0.1)
    graph = openvino.Core().read_model(decoder_to_onnx(policy))
    exported = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tokens = torch.randn(1, 3, len(policy.spec.cameras) + 3, policy.config.width)
    means = []
    for text in texts:
        with torch.no_grad():
            tokens[:, :, 0] = policy.text(text)
            means.append(policy.decode_all(tokens).component_distribution.mean.numpy())
        np.testing.assert_allclose(exported({"tokens": tokens.numpy()})["means"], means[-1], atol=1e-5)
    assert np.abs(means[0] - means[1]).max() > 0.01


def test_own_encoders_of_a_decoder_act_alike_on_every_backend(checkpoint, observations):
    policy = checkpoint.build_policy().eval()
    texts = torch.randn(2, policy.spec.text_width)
    policy.add_decoder(texts[:1], texts[1:], 0, own_encoders=True)
    torch.nn.init.normal_(policy.decoders[0].image_encoders[0].project.weight, std=0.1)
    batch = to_model_input(
        {c.name: observations[0].images[c.name][None, None] for c in policy.spec.cameras},
        observations[0].joint[None, None],
        observations[0].gripper[None, None],
        texts[:1].numpy(),
    )
    found = []
    for text in texts:
        batch["text"] = text[None]
        with torch.no_grad():
            expected = policy.encode_step(batch)
            for backend in ("torch", "openvino"):
                acting = optimize_for_inference(copy.deepcopy(policy), backend=backend)
                torch.testing.assert_close(acting.encode_step(batch), expected, rtol=1e-3, atol=1e-3)
        found.append(expected)
    assert not torch.equal(found[0][:, :, 3], found[1][:, :, 3])
