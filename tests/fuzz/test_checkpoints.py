"""Checkpoints, ours and LIBERO's, and their policy spec. Checksums are correct, as in a deliberate attack."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from damage import byte_edits, each_value_odd, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Link, Reader

from m2distill_policy.checkpoint import FILES, SUMS, Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.models import Policy, ResNetStage, libero, small
from m2distill_policy.spec import libero_spec
from m2distill_training.data.libero.libero_checkpoint import _constants, import_libero_checkpoint, module_names

SPEC = libero_spec(size_px=16, history=2, text_encoder="none", text_width=4)
CONFIG = dataclasses.replace(
    small(),
    stem_width=4,
    stages=(ResNetStage(4, 1, 1),),
    keypoints=2,
    width=4,
    layers=1,
    heads=1,
    head_width=2,
    mlp_width=4,
    mixture_hidden=4,
    modes=2,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "checkpoint"
    save_checkpoint(
        path,
        Checkpoint(
            SPEC, CONFIG, Policy(CONFIG, SPEC).state_dict(), {"go": np.ones(4, np.float32)}, {"success": {"go": 0.5}}
        ),
    )
    return {name: (path / name).read_bytes() for name in (*FILES, SUMS)}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    with Reader(lambda case: load_checkpoint(case).build_policy(), tmp_path_factory.mktemp("ours")) as reader:
        yield reader


def sealed(files):
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in FILES)
    return {**files, SUMS: sums.encode()}


def test_a_valid_checkpoint_is_accepted(ours, good):
    assert ours.judge(good) == "" and sealed(good) == good


@fuzzed(60, name=st.sampled_from(FILES), edits=byte_edits)
def test_damaged_bytes_of_a_checkpoint(ours, good, name, edits):
    ours.judge(sealed({**good, name: edit_bytes(good[name], edits)}))


@pytest.mark.parametrize("name", ["spec.json", "model.json"])
def test_every_value_of_spec_and_model(ours, good, name):
    for document in each_value_odd(json.loads(good[name])):
        ours.judge(sealed({**good, name: to_json(document)}))


@fuzzed(40, name=st.sampled_from(["spec.json", "model.json", "metrics.json"]), edits=value_edits)
def test_changed_values_of_a_checkpoint(ours, good, name, edits):
    ours.judge(sealed({**good, name: to_json(edit_values(json.loads(good[name]), edits))}))


@fuzzed(60, name=st.sampled_from(["weights.safetensors", "instructions.safetensors"]), edits=value_edits)
def test_changed_headers_of_tensors(ours, good, name, edits):
    content = good[name]
    size = int.from_bytes(content[:8], "little")
    header = to_json(edit_values(json.loads(content[8 : 8 + size]), edits))
    ours.judge(sealed({**good, name: len(header).to_bytes(8, "little") + header + content[8 + size :]}))


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_links_in_place_of_files(ours, good, name):
    assert "lacks" in ours.judge({**good, name: Link("/dev/zero")})
    assert "lacks" in ours.judge({**good, name: Link(name)})
    assert ours.judge({**good, name: Link("../outside")})


# LIBERO's checkpoints: a pickle in a zip


def libero_contents(size_px=16):
    """Return a checkpoint as LIBERO's training saves it, with a small network."""
    config = dataclasses.replace(
        libero(), width=4, keypoints=2, layers=1, heads=1, head_width=2, mlp_width=4, mixture_hidden=4, modes=2
    )
    spec = dataclasses.replace(libero_spec(size_px=size_px), history=2)
    state = Policy(config, spec).state_dict()
    modules = module_names(config, 2)
    theirs = {f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": x for name, x in state.items()}
    theirs |= _constants(theirs, config, spec)
    kwargs = "network_kwargs"
    policy = {
        "policy_type": "BCTransformerPolicy",
        "extra_num_layers": 0,
        "embed_size": 4,
        "transformer_num_layers": 1,
        "transformer_num_heads": 1,
        "transformer_head_output_size": 2,
        "transformer_mlp_hidden_size": 4,
        "transformer_dropout": 0.1,
        "transformer_max_seq_len": 2,
        "image_encoder": {
            "network": "ResnetEncoder",
            kwargs: {"language_fusion": "film", "remove_layer_num": 4, "no_stride": False},
        },
        "language_encoder": {"network": "MLPEncoder", kwargs: {"num_layers": 1}},
        "temporal_position_encoding": {kwargs: {"factor_ratio": None, "inv_freq_factor": 10}},
        "policy_head": {
            "network": "GMMHead",
            kwargs: {"num_layers": 2, "activation": "softplus", "hidden_size": 4, "num_modes": 2, "min_std": 1e-4},
        },
    }
    rgb = ["agentview_rgb", "eye_in_hand_rgb"]
    cfg = {
        "policy": policy,
        "data": {"obs": {"modality": {"rgb": rgb}}, "use_joint": True, "use_gripper": True, "use_ee": False},
        "shape_meta": {"all_shapes": {name: [3, size_px, size_px] for name in rgb}},
        "task_embedding_format": "bert",
        "benchmark_name": "LIBERO_OBJECT",
        "lifelong": {"algo": "ER"},
    }
    return {"state_dict": theirs, "cfg": cfg, "previous_masks": None}


def saved(contents) -> bytes:
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    text = {"go": np.ones(768, np.float32)}
    with Reader(
        lambda case: import_libero_checkpoint(case / "a.pth", case / "out", text), tmp_path_factory.mktemp("theirs")
    ) as reader:
        yield reader


LIBERO = libero_contents()
SAVED = saved(LIBERO)


def test_a_valid_libero_checkpoint_is_accepted(theirs):
    assert theirs.judge({"a.pth": SAVED}) == ""


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_a_libero_checkpoint(theirs, edits):
    theirs.judge({"a.pth": edit_bytes(SAVED, edits)})


@fuzzed(60, edits=byte_edits)
def test_damaged_pickle_of_a_libero_checkpoint(theirs, edits):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(SAVED)) as source, zipfile.ZipFile(buffer, "w") as target:
        for info in source.infolist():
            content = source.read(info)
            target.writestr(info, edit_bytes(content, edits) if info.filename.endswith("data.pkl") else content)
    theirs.judge({"a.pth": buffer.getvalue()})


@fuzzed(100, edits=value_edits)
def test_changed_values_of_a_libero_checkpoint(theirs, edits):
    theirs.judge({"a.pth": saved({**LIBERO, "cfg": edit_values(LIBERO["cfg"], edits)})})


@pytest.mark.parametrize("shape", [None, [], [3, None, 16], [3, "16", 16], [1, 16, 16]])
def test_an_image_shape_that_is_not_three_numbers_is_rejected(theirs, shape):
    shapes = {"all_shapes": {"agentview_rgb": shape, "eye_in_hand_rgb": [3, 16, 16]}}
    message = theirs.judge({"a.pth": saved({**LIBERO, "cfg": {**LIBERO["cfg"], "shape_meta": shapes}})})
    assert "expected (3, height, width)" in message


@fuzzed(20, edits=value_edits)
def test_changed_tensors_of_a_libero_checkpoint(theirs, edits):
    theirs.judge({"a.pth": saved({**LIBERO, "state_dict": edit_values(LIBERO["state_dict"], edits)})})


class Planted:
    """Object whose pickle calls a function when it is loaded."""

    def __init__(self, call, *arguments):
        self._call = call, arguments

    def __reduce__(self):
        return self._call


PLANTED = [
    (os.system, "touch ../planted"),
    (eval, "open('../planted', 'w')"),
    (os.symlink, "a.pth", "../planted"),
    (torch.load, "a.pth"),
    (np.load, "a.pth"),
    (torch.serialization.add_safe_globals, []),
]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("save", [saved, pickle.dumps, lambda x: saved({**LIBERO, "cfg": {**LIBERO["cfg"], "x": x}})])
def test_a_pickle_that_calls_a_function_is_rejected(theirs, planted, save):
    assert "not a LIBERO checkpoint" in theirs.judge({"a.pth": save(Planted(*planted))})


def test_oversized_tensors_are_rejected(theirs):
    wide = torch.zeros(1).expand(2**40)
    weights = {**LIBERO["state_dict"], "policy_head.mean_layer.bias": wide}
    assert str(wide.numel()) in theirs.judge({"a.pth": saved({**LIBERO, "state_dict": weights})})
