"""Parity with LIBERO: the `libero` preset equals its BCTransformerPolicy, and its checkpoints can be imported.

data/libero_reference.npz holds the outputs of LIBERO's code for weights and inputs computed by formulas;
make_libero_reference.py has the formulas and wrote it. Set LIBERO_SOURCE to a clone of LIBERO to run its code again.
"""

import copy
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.errors import CheckpointError
from m2distill_policy.models import Policy, libero
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import libero_spec
from m2distill_training.data.libero.libero_checkpoint import convert_state_dict, import_libero_checkpoint

HERE = Path(__file__).parent
SCRIPT, REFERENCE = HERE / "make_libero_reference.py", HERE / "data" / "libero_reference.npz"
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}

module = importlib.util.spec_from_file_location("make_libero_reference", SCRIPT)
formulas = importlib.util.module_from_spec(module)
module.loader.exec_module(formulas)


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as file:
        return dict(file)


@pytest.fixture(scope="module")
def libero_weights(reference):
    """Return LIBERO's state_dict with the values of the formula."""
    shapes = json.loads(str(reference["shapes_json"]))
    made = {name: np.asarray(formulas.weight(name, tuple(shape))) for name, shape in shapes.items()}
    return {name: torch.from_numpy(reference.get(name, value)) for name, value in made.items()}


@pytest.fixture(scope="module")
def policy(libero_weights):
    policy = Policy(libero(), libero_spec()).eval()
    policy.load_state_dict(convert_state_dict(libero_weights, libero(), libero_spec(), "LIBERO's weights"))
    return policy


@pytest.fixture
def contents(libero_weights):
    """Return the content that LIBERO's torch_save_model writes, with the configuration that an import reads."""
    cfg = EasyDict(
        {
            "policy": {
                "policy_type": "BCTransformerPolicy",
                "extra_num_layers": 0,
                "embed_size": 64,
                "transformer_num_layers": 4,
                "transformer_num_heads": 6,
                "transformer_head_output_size": 64,
                "transformer_mlp_hidden_size": 256,
                "transformer_dropout": 0.1,
                "transformer_max_seq_len": 10,
                "image_encoder": {
                    "network": "ResnetEncoder",
                    "network_kwargs": {"language_fusion": "film", "remove_layer_num": 4, "no_stride": False},
                },
                "language_encoder": {"network": "MLPEncoder", "network_kwargs": {"num_layers": 1}},
                "temporal_position_encoding": {"network_kwargs": {"inv_freq_factor": 10, "factor_ratio": None}},
                "policy_head": {
                    "network": "GMMHead",
                    "network_kwargs": {
                        "hidden_size": 1024,
                        "num_layers": 2,
                        "min_std": 0.0001,
                        "num_modes": 5,
                        "activation": "softplus",
                    },
                },
            },
            "data": {
                "obs": {"modality": {"rgb": ["agentview_rgb", "eye_in_hand_rgb"]}},
                "use_joint": True,
                "use_gripper": True,
                "use_ee": False,
            },
            "shape_meta": {"all_shapes": {"agentview_rgb": [3, 128, 128], "eye_in_hand_rgb": [3, 128, 128]}},
            "task_embedding_format": "bert",
            "benchmark_name": "LIBERO_OBJECT",
            "lifelong": {"algo": "ER"},
        }
    )
    return {"state_dict": dict(libero_weights), "cfg": copy.deepcopy(cfg), "previous_masks": None}


def tensors(arrays):
    return {
        "images": {ours: torch.from_numpy(arrays[theirs]) for theirs, ours in formulas.CAMERAS.items()},
        "joint": torch.from_numpy(arrays["joint_states"]),
        "gripper": torch.from_numpy(arrays["gripper_states"]),
        "text": torch.from_numpy(arrays["task_emb"]),
    }


def assert_mixture(dist, reference, prefix, index=()):
    numbers = {
        "means": dist.component_distribution.mean,
        "scales": dist.component_distribution.stddev,
        "logits": dist.mixture_distribution.logits,
    }
    for name, value in numbers.items():
        np.testing.assert_allclose(value.numpy(), reference[f"{prefix}_{name}"][index], **TOLERANCE, err_msg=name)


def test_the_parameter_count_equals_libero(policy, reference):
    assert sum(p.numel() for p in policy.parameters()) == int(reference["parameters"]) == 5_383_307


def test_a_window_gives_the_mixtures_of_libero(policy, reference):
    with torch.no_grad():
        output = policy(tensors(formulas.inputs(formulas.FORWARD_STEPS, formulas.BATCH)))
    assert output.dist.batch_shape == (formulas.BATCH, formulas.FORWARD_STEPS)
    assert_mixture(output.dist, reference, "forward")


def test_single_steps_give_the_mixtures_of_libero_after_the_queue_is_full(policy, reference):
    batch = tensors(formulas.inputs(formulas.QUEUE_STEPS, 1))
    assert policy.spec.history < formulas.QUEUE_STEPS
    queue = []
    with torch.no_grad():
        for t in range(formulas.QUEUE_STEPS):
            now = slice(t, t + 1)
            queue.append(
                policy.encode_step(
                    {
                        "images": {name: pixels[:, now] for name, pixels in batch["images"].items()},
                        "joint": batch["joint"][:, now],
                        "gripper": batch["gripper"][:, now],
                        "text": batch["text"],
                    }
                )
            )
            assert_mixture(policy.decode(torch.cat(queue[-policy.spec.history :], 1)), reference, "queue", now)


@pytest.mark.slow
def test_an_imported_checkpoint_acts_as_libero(tmp_path, contents, reference):
    torch.save(contents, tmp_path / "task0_model.pth")
    arrays = formulas.inputs(formulas.QUEUE_STEPS, 1)
    import_libero_checkpoint(tmp_path / "task0_model.pth", tmp_path / "out", {"do it": arrays["task_emb"][0]})

    checkpoint = load_checkpoint(tmp_path / "out")
    assert checkpoint.spec == libero_spec()
    assert checkpoint.model_config == libero()
    sampling = InferencePolicy(checkpoint, sampling="mode")
    sampling.set_text(checkpoint.instructions["do it"])
    for t in range(formulas.QUEUE_STEPS):
        images = {
            ours: np.rint(arrays[theirs][0, t] * 255).astype(np.uint8).transpose(1, 2, 0)
            for theirs, ours in formulas.CAMERAS.items()
        }
        joint, gripper = arrays["joint_states"][0, t], arrays["gripper_states"][0, t]
        sample = sampling.step(Observation(images, joint, gripper, stamp_ns=t))
        logits = reference["queue_logits"][t].astype(np.float64)
        assert sample.mode == logits.argmax()
        np.testing.assert_allclose(sample.action, reference["queue_means"][t][sample.mode], **TOLERANCE)
        assert sample.entropy == pytest.approx(-(np.exp(logits) * logits).sum(), abs=1e-5)
        deviations = (sample.action - reference["queue_means"][t]) / reference["queue_scales"][t]
        densities = -0.5 * deviations**2 - np.log(reference["queue_scales"][t]) - 0.5 * np.log(2 * np.pi)
        assert sample.log_prob == pytest.approx(np.logaddexp.reduce(logits + densities.sum(1)), abs=1e-4)


class Planted:
    """Object whose pickle creates a file when it is unpickled without restrictions."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["cfg", "state_dict"])
def test_a_malicious_pickle_is_rejected_and_not_executed(tmp_path, contents, place):
    contents[place]["planted"] = Planted(tmp_path / "harm")
    torch.save(contents, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"asks for (posix|os)\.mkdir"):
        import_libero_checkpoint(tmp_path / "model.pth", tmp_path / "out", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.pth"]
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert (tmp_path / "harm").exists(), "the plant would not have gone off in plain unpickling either"


def lose_a_weight(contents):
    del contents["state_dict"]["policy_head.mean_layer.bias"]


def add_a_weight(contents):
    contents["state_dict"]["policy_head.extra"] = torch.zeros(1)


def reshape_a_weight(contents):
    contents["state_dict"]["policy_head.mean_layer.bias"] = torch.zeros(34)


def spoil_a_weight(contents):
    contents["state_dict"]["policy_head.mean_layer.bias"] = torch.full((35,), torch.nan)


def other_frequencies(contents):
    contents["cfg"]["policy"]["temporal_position_encoding"]["network_kwargs"]["inv_freq_factor"] = 10000


def other_policy(contents):
    contents["cfg"]["policy"]["policy_type"] = "BCRNNPolicy"


def other_language(contents):
    contents["cfg"]["task_embedding_format"] = "clip"


def lose_a_setting(contents):
    del contents["cfg"]["policy"]["embed_size"]


def text_for_a_number(contents):
    contents["cfg"]["policy"]["embed_size"] = "64"


def a_fraction_of_a_layer(contents):
    contents["cfg"]["policy"]["transformer_num_layers"] = 2.5


def an_endless_width(contents):
    contents["cfg"]["policy"]["embed_size"] = float("inf")


def packnet(contents):
    contents["previous_masks"] = {0: torch.ones(3)}


def no_configuration(contents):
    del contents["cfg"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose_a_weight, r"missing \['policy_head.mean_layer.bias'\]"),
        (add_a_weight, r"unknown \['policy_head.extra'\]"),
        (reshape_a_weight, r"head.mean.bias is torch.float32 \(34,\), expected torch.float32 \(35,\)"),
        (spoil_a_weight, "head.mean.bias holds values that are not finite"),
        (other_frequencies, "inv_freq is not what"),
        (other_policy, "policy.policy_type = 'BCRNNPolicy', only 'BCTransformerPolicy'"),
        (other_language, "task_embedding_format = 'clip', only 'bert'"),
        (lose_a_setting, "lacks policy.embed_size"),
        (text_for_a_number, "policy.embed_size = '64', expected a finite number"),
        (a_fraction_of_a_layer, "policy.transformer_num_layers = 2.5, expected a whole number"),
        (an_endless_width, "policy.embed_size = inf, expected a finite number"),
        (packnet, "PackNet"),
        (no_configuration, "no usable 'cfg'"),
    ],
)
def test_a_checkpoint_that_cannot_be_imported_is_rejected_with_the_reason(tmp_path, contents, harm, message):
    harm(contents)
    torch.save(contents, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        import_libero_checkpoint(tmp_path / "model.pth", tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00.", pickle.dumps(os.getcwd, protocol=4)]
)
def test_a_file_of_other_content_is_rejected_without_torch_warnings(tmp_path, content):
    """Torch would suggest weights_only=False; the message must not."""
    (tmp_path / "model.pth").write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(CheckpointError) as error:
        warnings.simplefilter("error")
        import_libero_checkpoint(tmp_path / "model.pth", tmp_path / "out", {})
    assert str(error.value).startswith(f"{tmp_path / 'model.pth'} is not a LIBERO checkpoint: ")
    assert "give a task*_model.pth" in str(error.value) and "weights_only" not in str(error.value)


def test_a_truncated_file_is_rejected(tmp_path, contents):
    torch.save(contents, tmp_path / "model.pth")
    whole = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is not a LIBERO checkpoint"):
        import_libero_checkpoint(tmp_path / "model.pth", tmp_path / "out", {})


@pytest.mark.skipif("LIBERO_SOURCE" not in os.environ, reason="LIBERO_SOURCE names no clone of LIBERO")
def test_the_pinned_outputs_equal_those_of_libero_code(tmp_path, reference):
    subprocess.run([sys.executable, SCRIPT, os.environ["LIBERO_SOURCE"], tmp_path / "fresh.npz"], check=True)
    with np.load(tmp_path / "fresh.npz") as fresh:
        assert set(fresh) == set(reference)
        for name in fresh:
            if fresh[name].dtype.kind == "f":
                np.testing.assert_allclose(fresh[name], reference[name], **TOLERANCE, err_msg=name)
            else:
                assert fresh[name] == reference[name], name
