"""Every reader of files that are missing, closed to the user, cut short, damaged, or replaced meanwhile."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import disk_cases
import disk_readers
import numpy as np
import pytest
from disk_readers import Case, outcome_apart

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from m2distill_policy.errors import DataError
from m2distill_policy.utils.files import write_atomically
from m2distill_training.data import store
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.libero.writer import NewDemo, write_demos
from m2distill_training.data.store import open_store
from m2distill_training.runs.records import append_line, read_json, read_lines, write_json

CASES = disk_readers.cases()
NOBODY, MOST_WRITES = 65534, 2000
MAY_BE_MISSING = ("log of a run", "finished episodes")  # a run that has just begun


@pytest.fixture(scope="module")
def source():
    with tempfile.TemporaryDirectory() as parent:  # pytest's folders are closed to the user "nobody"
        os.chmod(parent, 0o755)
        folder = Path(parent, "source")
        folder.mkdir()
        disk_readers.prepare(folder)
        yield folder


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@contextmanager
def changed(path: Path, change: Callable[[Path], object]) -> Iterator[None]:
    """Apply a change to a file, and restore it."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(shutil.copy2(path, folder))
        try:
            change(path)
            yield
        finally:
            path.unlink(missing_ok=True)
            shutil.copy2(kept, path)


def outcomes(case: Case, source: Path, change: Callable[[Path], object], user: int | None = None) -> dict[str, str]:
    """Return {file: outcome} with the change in one file at a time."""
    found = {}
    for path in case.paths(source):
        with changed(path, change):
            found[str(path.relative_to(source))] = outcome_apart(case.read, source, user)
    return found


def is_one_line(outcome: str, path: str) -> bool:
    """Return whether an error is one line that names the file, or the folder whose part it is."""
    names = {part for part in Path(path).parts[:2]} | {Path(path).name}
    return (
        outcome.startswith(("UserError: ", "OSError "))
        and "\n" not in outcome
        and any(name in outcome for name in names)
    )


def test_every_reader_reads_what_it_is_given(case, source):
    assert outcome_apart(case.read, source) == "read"


def test_a_missing_file_is_one_line(case, source, request):
    for path, outcome in outcomes(case, source, Path.unlink).items():
        empty = request.node.callspec.params["case"] in MAY_BE_MISSING and outcome == "read"
        assert empty or is_one_line(outcome, path), (path, outcome)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_file_of_another_user_is_one_line(case, source):
    for path, outcome in outcomes(case, source, lambda path: path.chmod(0), NOBODY).items():
        assert is_one_line(outcome, path), (path, outcome)


@pytest.mark.parametrize("part", [0.0, 0.6])
def test_a_file_that_is_cut_short_is_one_line(case, source, part, request):
    for path, outcome in outcomes(
        case, source, lambda path: os.truncate(path, int(path.stat().st_size * part))
    ).items():
        # a log may end anywhere: its last line is left out
        cut = request.node.callspec.params["case"] in MAY_BE_MISSING and outcome == "read"
        assert cut or is_one_line(outcome, path), (path, outcome)


def test_damage_is_one_line_or_is_in_an_image_or_a_number(case, source):
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(x ^ 0xA5 for x in content[middle : middle + 64])
        path.write_bytes(content)

    for path, outcome in outcomes(case, source, damage).items():
        unnoticed = outcome == "read" and not case.checked
        assert unnoticed or is_one_line(outcome, path), (path, outcome)


@contextmanager
def beside(write: Callable[[int], object]) -> Iterator[None]:
    """Let another process write, again and again, but not without end: a disk is finite."""
    if (child := os.fork()) == 0:
        for number in range(1, MOST_WRITES):
            write(number)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_one_of_both(tmp_path):
    first = disk_cases.a_checkpoint()
    other = Checkpoint(first.spec, first.model_config, first.state_dict, {"other": np.zeros(8, np.float32)})
    both = [first, other]
    ids = {save_checkpoint(tmp_path / "c", checkpoint) for checkpoint in both}
    with beside(lambda number: save_checkpoint(tmp_path / "c", both[number % 2])):
        found = [load_checkpoint(tmp_path / "c").id for _ in range(60)]
    assert set(found) == ids


def test_a_record_that_is_replaced_while_it_is_read_is_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"number": 0, "text": ["x" * 900] * 50})
    with beside(lambda number: write_json(path, {"number": number, "text": ["x" * 900] * 50})):
        found = [0]
        while len(set(found)) < 20 and found[-1] < MOST_WRITES - 1:
            found.append(read_json(path)["number"])
    assert found == sorted(found) and len(set(found)) > 1


def test_a_log_that_grows_while_it_is_read_has_whole_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(path, {"number": 0})
    with beside(lambda number: append_line(path, {"number": number, "text": ["x" * 90] * 20})):
        found: list[int] = []
        while len(found) < MOST_WRITES / 2:
            found = [line["number"] for line in read_lines(path)]
            assert found == list(range(len(found)))


def test_a_demonstration_file_that_is_replaced_while_it_is_read_is_one_of_both(tmp_path):
    from_noise = disk_cases.DEMO
    tables = (from_noise.joint, from_noise.gripper, from_noise.action)
    demos = [Demo("a", from_noise.images, *(np.full_like(x, value) for x in tables)) for value in (0.0, 1.0)]
    path = tmp_path / "a_demo.hdf5"

    def write(number: int) -> None:
        write_demos(path, "do", [NewDemo(demos[number % 2], {}, {})])

    write(0)
    with beside(write):
        for _ in range(20):
            with open_libero(path, "before") as file:
                (demo,) = file.demos()
            assert {*demo.joint.ravel()} == {*demo.action.ravel()} <= {0.0, 1.0}


def test_frames_of_a_file_that_was_replaced_meanwhile_are_not_kept(tmp_path, monkeypatch):
    """Its key would be that of the new content."""
    path = tmp_path / "a_demo.hdf5"
    write_demos(path, "do", [NewDemo(disk_cases.DEMO, {}, {})])
    content_key = store._content_key

    def replaced(*arguments) -> str:
        write_atomically(path, path.read_bytes() + b" ")
        return content_key(*arguments)

    monkeypatch.setattr(store, "_content_key", replaced)
    with pytest.raises(DataError, match="a_demo.hdf5 was replaced while it was read; repeat the command"):
        open_store(path, disk_cases.SPEC, "before")
    monkeypatch.undo()
    assert open_store(path, disk_cases.SPEC, "before").n_demos == 1
