"""Files that are checked before LIBERO and MuJoCo read them: task files, initial states, assets folders."""

import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from damage import byte_edits, edit_bytes, fuzzed
from hypothesis import strategies as st
from reading import Link, Reader

from m2distill_sim.assets import AssetSource, find_assets, libero_package
from m2distill_sim.builtin import builtin_files
from m2distill_sim.suites import find_task, read_states
from m2distill_sim.task_files import check_task_files

TASK = find_task("libero_object", 0)
BDDL = TASK.bddl_file.read_bytes()
STATES = (libero_package() / "init_files" / TASK.suite / f"{TASK.name}.pruned_init").read_bytes()
NEEDED = re.compile("scenes/libero_floor.*xml|alphabet_soup|basket|textures|salad|cream|milk|tomato|butter")
ASSETS = {f"assets/{name}": content for name, content in builtin_files().items() if NEEDED.search(name)}
MODELS = sorted(name for name in ASSETS if name.endswith(".xml") and ("floor" in name or "basket" in name))


def read(case):
    check_task_files(case / "task.bddl", AssetSource("path", case / "assets", "libero"))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    find_assets("builtin")
    with Reader(read, tmp_path_factory.mktemp("task")) as reader:
        yield reader


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    with Reader(lambda case: read_states(case / "a.pruned_init"), tmp_path_factory.mktemp("states")) as reader:
        yield reader


def test_valid_files_are_accepted(task, states):
    assert task.judge({"task.bddl": BDDL, **ASSETS}) == "" and states.judge({"a.pruned_init": STATES}) == ""


@fuzzed(50, edits=byte_edits)
def test_damaged_bytes_of_a_task_file(task, edits):
    task.judge({"task.bddl": edit_bytes(BDDL, edits), **ASSETS})


WORDS = re.findall(rb"[()]|[^\s()]+", BDDL)
ODD_WORDS = [b"(", b")", b"-", b":fixtures", b"(" * 100_000, b")" * 100_000, b"x" * 100_000, b"\xff", b"..", b";", b""]


word_edits = st.tuples(st.integers(0, len(WORDS) - 1), st.sampled_from([*ODD_WORDS, *WORDS]))


@fuzzed(50, edits=st.lists(word_edits, min_size=1, max_size=4))
def test_changed_words_of_a_task_file(task, edits):
    words = list(WORDS)
    for at, word in edits:
        words[at] = word
    task.judge({"task.bddl": b" ".join(words), **ASSETS})


@fuzzed(40, name=st.sampled_from(MODELS), edits=byte_edits)
def test_damaged_bytes_of_a_model(task, name, edits):
    task.judge({"task.bddl": BDDL, **ASSETS, name: edit_bytes(ASSETS[name], edits)})


LAUGHS = (
    b'<!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 100) for i in range(10))
    + b"]><mujoco>&k;</mujoco>"
)
XML = [
    LAUGHS,
    b'<?xml version="1.0" encoding="x"?><mujoco/>',
    b'<?xml version="1.0" encoding="utf-7"?><mujoco/>',
    b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><mujoco>&a;</mujoco>',
    b"<a>" * 100_000,
    b"",
    *(
        b'<mujoco><asset><mesh name="m" file="%s"/></asset></mujoco>' % name
        for name in (b"../../../outside", b"/nothing", b"/etc/passwd", b"x" * 5000, b".")
    ),
]


@pytest.mark.parametrize("content", XML, ids=range(len(XML)))
def test_odd_models(task, content):
    task.judge({"task.bddl": BDDL, **ASSETS, MODELS[0]: content})


@pytest.mark.parametrize("name", ["task.bddl", MODELS[0]])
def test_links_in_place_of_files(task, name):
    for target in ("/dev/zero", "nothing", "..", name.rpartition("/")[2]):
        if (name, target) != ("task.bddl", "/dev/zero"):
            assert task.judge({"task.bddl": BDDL, **ASSETS, name: Link(target)})


# Initial states: a pickle in a zip


def packed(content: bytes, compression=zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
    return buffer.getvalue()


with zipfile.ZipFile(io.BytesIO(STATES)) as archive:
    PICKLE = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@fuzzed(60, edits=byte_edits)
def test_damaged_bytes_of_initial_states(states, edits):
    states.judge({"a.pruned_init": edit_bytes(STATES, edits)})


@fuzzed(150, edits=byte_edits, where=st.sampled_from([200, 10**9]))
def test_damaged_pickle_of_initial_states(states, edits, where):
    states.judge({"a.pruned_init": packed(edit_bytes(PICKLE[:where], edits) + PICKLE[where:])})


def nested(depth: int) -> list:
    rows = [0.0]
    for _ in range(depth):
        rows = [rows, rows]
    return rows


def holding(thing) -> np.ndarray:
    array = np.empty((1, 1), object)
    array[0, 0] = thing
    return array


class Planted:
    def __init__(self, call, *arguments):
        self._call = call, arguments

    def __reduce__(self):
        return self._call


HOSTILE = [
    (pickle.dumps(Planted(os.system, "touch ../planted")), "expected an array"),
    (pickle.dumps(Planted(eval, "open('../planted', 'w')")), "expected an array"),
    (pickle.dumps(Planted(np.load, "a.pruned_init", None, True)), "expected an array"),
    (b"\x80\x04Nr\xff\xff\xff\x7f.", "it numbers more objects than it contains"),
    (b"\x80\x04Np2147483647\n.", "it numbers more objects than it contains"),
    (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "not readable"),
    (pickle.dumps(nested(40)), "expected an array"),
    (pickle.dumps(holding(nested(40)), 2), "not readable"),
    (pickle.dumps(np.full((2, 2), np.nan), 2), "expected rows of finite numbers"),
    (pickle.dumps(np.zeros(3), 2), "expected rows of finite numbers"),
    (b"(" * 10**6 + b".", "not readable"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_pickles_are_rejected(states, content, message):
    content = content.replace(b"numpy._core", b"numpy.core")
    assert message in states.judge({"a.pruned_init": packed(content)})


def test_a_decompression_bomb_is_rejected(states):
    assert "it unpacks to" in states.judge({"a.pruned_init": packed(bytes(1 << 27), zipfile.ZIP_DEFLATED)})
