"""Files in the folder of `m2distill collect`: finished files, and attempts of an interrupted run."""

import json
from dataclasses import asdict

import h5py
import numpy as np
import pytest
from damage import byte_edits, edit_bytes, edit_values, fuzzed, to_json, value_edits
from reading import Link, Reader

from m2distill_sim.assets import find_assets
from m2distill_sim.collect import CollectSettings, unfinished_folder
from m2distill_sim.libero_writer import SimulatedEpisode, store_demo, write_task
from m2distill_sim.suites import find_task
from m2distill_training.experiments.collect import collect

TASK = find_task("libero_object", 0)
ASSETS = find_assets("builtin")
SETTINGS = CollectSettings(seed=0, size_px=16, assets=ASSETS.label)
FINISHED = f"{TASK.name}_demo.hdf5"
ATTEMPT = {
    "actions": np.zeros((4, 7)),
    "states": np.zeros((4, 9)),
    "obs/agentview_rgb": np.zeros((4, 8, 8, 3), np.uint8),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of a finished folder, and of one whose only attempt is recorded: nothing is left to simulate."""
    folder = tmp_path_factory.mktemp("good")
    attempt = unfinished_folder(folder, TASK, SETTINGS) / "0.hdf5"
    attempt.parent.mkdir(parents=True)
    store_demo(attempt, SimulatedEpisode(ATTEMPT, "<mujoco/>"))
    write_task(
        folder / FINISHED,
        TASK,
        [attempt],
        ASSETS.label,
        True,
        {"collect_settings": json.dumps(SETTINGS.to_json()), "experts": "x"},
    )
    return {path: (folder / path).read_bytes() for path in (FINISHED, str(attempt.relative_to(folder)))}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    def read(case):
        collect(TASK.suite, [0], 1, case, workers=1, size_px=16, assets=ASSETS, progress=False)

    with Reader(read, tmp_path_factory.mktemp("collected")) as reader:
        yield reader


def test_valid_folders_are_accepted(reader, files):
    for name, content in files.items():
        assert reader.judge({name: content}) == ""
        assert [path.name for path in (reader.folder / "case").iterdir()] == [FINISHED]


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_a_finished_file(reader, files, edits):
    reader.judge({FINISHED: edit_bytes(files[FINISHED], edits)})


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_a_recorded_attempt(reader, files, edits):
    name = next(name for name in files if name != FINISHED)
    reader.judge({name: edit_bytes(files[name], edits)})


@pytest.fixture
def attributes(reader, files, tmp_path):
    """Function attributes(name=value) -> message about the finished file with these attributes."""

    def judge(**values) -> str:
        (tmp_path / FINISHED).write_bytes(files[FINISHED])
        with h5py.File(tmp_path / FINISHED, "r+") as file:
            file["data"].attrs.update(values)
        return reader.judge({FINISHED: (tmp_path / FINISHED).read_bytes()})

    return judge


@fuzzed(80, edits=value_edits)
def test_changed_values_of_the_settings(attributes, edits):
    attributes(collect_settings=np.bytes_(to_json(edit_values(asdict(SETTINGS), edits))[:60_000]))


@pytest.mark.parametrize("odd", [0, -1, 2, 0.5, np.nan, np.inf, "x", [], np.zeros(3), h5py.Empty("f")], ids=repr)
def test_a_wrong_number_of_demonstrations_is_rejected(attributes, odd):
    assert FINISHED in attributes(num_demos=odd)


@pytest.mark.parametrize("target", ["..", "/dev/zero"])
def test_a_folder_or_device_in_place_of_a_file_is_rejected(reader, target):
    assert FINISHED in reader.judge({FINISHED: Link(target)})
