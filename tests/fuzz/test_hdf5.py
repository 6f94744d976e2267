"""LIBERO-format files and robosuite's demonstrations, both HDF5, which a C library reads."""

import io
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from damage import byte_edits, edit_bytes, edit_values, fuzzed, to_json, value_edits
from hypothesis import strategies as st
from reading import Reader

from m2distill_policy.spec import libero_spec
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.store import open_store
from m2distill_training.experiments.robosuite_demos import read_recordings

SPEC = libero_spec(size_px=8)
PROBLEM = {"problem_name": "x", "language_instruction": ["pick", "up"]}
CONTROLLER = {"type": "OSC_POSE", "output_max": [0.05] * 3 + [0.5] * 3}
ENV_INFO = {"env_name": "Lift", "robots": "Panda", "controller_configs": CONTROLLER}
MODEL = '<mujoco><geom name="cube_g0" size="0.02 0.02 0.02"/></mujoco>'


def libero_datasets(steps: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps, 8, 8, 3), np.uint8)
    return {
        "actions": rng.uniform(-1, 1, (steps, 7)),
        "obs/agentview_rgb": images,
        "obs/eye_in_hand_rgb": images,
        "obs/joint_states": rng.normal(size=(steps, 7)),
        "obs/gripper_states": rng.uniform(size=(steps, 2)),
    }


def libero_file(problem: bytes = to_json(PROBLEM), change=lambda data: None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"problem_info": problem, "macros_image_convention": "opengl", "obs_after_action": True})
        for i in range(2):
            for name, array in libero_datasets().items():
                data.create_dataset(
                    f"demo_{i}/{name}",
                    data=array,
                    chunks=(2, *array.shape[1:]),
                    compression="gzip" if array.dtype == np.uint8 else None,
                )
        change(data)
    return buffer.getvalue()


def robosuite_file(info: bytes = to_json(ENV_INFO), model: str = MODEL) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        data = file.create_group("data")
        data.attrs["env_info"] = info
        for i in (1, 2):
            group = data.create_group(f"demo_{i}")
            group["states"], group["actions"] = np.zeros((4, 32)), np.zeros((4, 7))
            group.attrs["model_file"] = model
    return buffer.getvalue()


def read_libero(folder: Path) -> None:
    with open_libero(folder / "a.hdf5", "before") as file:
        list(file.demos())
    open_store(folder / "a.hdf5", SPEC, "before")


@pytest.fixture(scope="module")
def libero(tmp_path_factory):
    with Reader(read_libero, tmp_path_factory.mktemp("libero")) as reader:
        yield reader


@pytest.fixture(scope="module")
def robosuite(tmp_path_factory):
    with Reader(lambda case: list(read_recordings(case / "a.hdf5")), tmp_path_factory.mktemp("robosuite")) as reader:
        yield reader


LIBERO, ROBOSUITE = libero_file(), robosuite_file()


def test_valid_files_are_accepted(libero, robosuite):
    assert libero.judge({"a.hdf5": LIBERO}) == "" and robosuite.judge({"a.hdf5": ROBOSUITE}) == ""


@fuzzed(150, edits=byte_edits)
def test_damaged_bytes_of_a_libero_file(libero, edits):
    libero.judge({"a.hdf5": edit_bytes(LIBERO, edits)})


@fuzzed(40, edits=byte_edits)
def test_damaged_bytes_of_robosuite_demonstrations(robosuite, edits):
    robosuite.judge({"a.hdf5": edit_bytes(ROBOSUITE, edits)})


@fuzzed(40, edits=value_edits)
def test_changed_values_of_json_attributes(libero, robosuite, edits):
    libero.judge({"a.hdf5": libero_file(to_json(edit_values(PROBLEM, edits))[:60_000])})
    robosuite.judge({"a.hdf5": robosuite_file(to_json(edit_values(ENV_INFO, edits))[:60_000])})


@fuzzed(20, sizes=st.text("0123456789.-+einfa \x00", max_size=30))
def test_sizes_in_a_robosuite_model(robosuite, sizes):
    robosuite.judge({"a.hdf5": robosuite_file(model=MODEL.replace("0.02 0.02 0.02", sizes.replace("\0", "")))})


def _attribute(name, value):
    def change(data):
        data.attrs[name] = value

    return change


NAMES = ("problem_info", "macros_image_convention", "obs_after_action")
VALUES = (
    None,
    h5py.Empty("f"),
    np.zeros(0),
    np.zeros((2, 2)),
    np.array([b"a", b"b"]),
    b"\xff\xfe",
    "",
    10**9,
    np.nan,
    np.array(["opengl", "x"], object),
    np.array((1, 2.0), [("a", "i4"), ("b", "f8")]),
)


@pytest.mark.parametrize("name", NAMES)
def test_attributes_of_any_type(libero, name):
    for value in VALUES:
        libero.judge(
            {
                "a.hdf5": libero_file(
                    change=_attribute(name, value) if value is not None else lambda data: data.attrs.pop(name)
                )
            }
        )


def _replace(name, **dataset):
    def change(data):
        del data[name]
        data.create_dataset(name, **dataset)

    return change


def _link(name, link):
    def change(data):
        del data[name]
        data[name] = link

    return change


def _far_away(data):
    """Link to a demonstration in another file."""
    del data["demo_1"]
    data["demo_1"] = h5py.ExternalLink("../outside.hdf5", "/data/demo_1")


def _virtual(data):
    del data["demo_1/actions"]
    layout = h5py.VirtualLayout((4, 7), "f8")
    layout[:] = h5py.VirtualSource("../outside.hdf5", "/data/demo_1/actions", (4, 7))
    data.create_virtual_dataset("demo_1/actions", layout)


def _bomb(data):
    del data["demo_1/obs/agentview_rgb"]
    images = data.create_dataset(
        "demo_1/obs/agentview_rgb", (4, 4096, 4096, 3), np.uint8, chunks=(1, 4096, 4096, 3), compression="gzip"
    )
    images[0] = 0  # 50 kB of the file become 0.2 GB


HOSTILE = [
    (_replace("demo_1/actions", shape=(10**9, 7), dtype="f8", chunks=(1000, 7)), "would take 56 GB"),
    (_replace("demo_1/actions", shape=(0, 7), dtype="f8"), "has 0 steps"),
    (_replace("demo_1/actions", data=h5py.Empty("f8")), "is empty"),
    (_replace("demo_1/actions", shape=(4, 7), dtype="f8", external=[("../outside.hdf5", 0, 224)]), "stored in other"),
    (_replace("demo_1/obs/agentview_rgb", shape=(4, 10**6, 10**6, 3), dtype="u1", chunks=(1, 8, 8, 3)), "would take"),
    (_bomb, "would take 0.201 GB"),
    (_virtual, "stored in other files"),
    (_far_away, "demo_1/actions is missing"),
    (_link("demo_1/actions", h5py.ExternalLink("../queue", "/x")), "demo_1/actions is missing"),
    (_link("demo_1/obs", h5py.SoftLink("/data/demo_0/obs")), "demo_1/obs/joint_states is missing"),
    (_link("demo_1", h5py.SoftLink("/data")), "demo_1/actions is missing"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_external_and_oversized_data_is_rejected(libero, change, message):
    folder = libero.folder
    (folder / "outside.hdf5").write_bytes(LIBERO)
    if not (folder / "queue").exists():
        os.mkfifo(folder / "queue")  # opening it blocks
    assert message in libero.judge({"a.hdf5": libero_file(change=change)})
