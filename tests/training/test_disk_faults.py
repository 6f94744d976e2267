"""Every writer on a full, a read-only and a forbidden disk, beside a twin, and after a kill; see disk_cases.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import disk_cases
import pytest

WRITERS = sorted(disk_cases.writers(Path()))
NO_SPACE, READ_ONLY, FORBIDDEN = "No space left on device", "Read-only file system", "Permission denied"


@pytest.fixture(scope="module")
def found():
    """{writer: {fault: outcome}}"""
    with tempfile.TemporaryDirectory() as parent:  # pytest's folders are closed to the user "nobody"
        disk, source = (Path(parent, name) for name in ("disk", "source"))
        for folder, mode in (
            (Path(parent), 0o755),
            (disk, 0o755),
            (source, 0o777),
        ):  # "nobody" writes its outcome there
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)
        yield outcomes(disk, source)


def outcomes(disk: Path, source: Path) -> dict:
    apart = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    can_mount = (
        shutil.which("unshare")
        and not subprocess.run([*apart, "mount", "-t", "tmpfs", "x", disk], check=False).returncode
    )
    if not can_mount:
        pytest.skip("no mount namespace can be made here")
    command = [*apart, sys.executable, disk_cases.__file__, disk, source]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def is_one_line(outcome: str, reason: str) -> bool:
    """A UserError, or an OSError with number and path, which the command line reports in one line."""
    return outcome.startswith(("UserError: ", "OSError ")) and reason in outcome and "\n" not in outcome


@pytest.mark.parametrize("writer", WRITERS)
def test_on_a_full_disk_a_writer_reports_it_in_one_line_and_leaves_nothing_unreadable(found, writer):
    row = found[writer]
    assert is_one_line(row["full"], NO_SPACE), row["full"]
    assert row["left when full"] == [] and row["read when full"] == ""


@pytest.mark.parametrize("writer", WRITERS)
def test_a_disk_that_is_read_only_is_reported_in_one_line(found, writer):
    assert is_one_line(found[writer]["read-only"], READ_ONLY), found[writer]["read-only"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_of_another_user_is_reported_in_one_line(found, writer):
    if found[writer]["not permitted"] is None:
        pytest.skip("only root can become another user")
    assert is_one_line(found[writer]["not permitted"], FORBIDDEN), found[writer]["not permitted"]


@pytest.mark.parametrize("writer", WRITERS)
def test_two_writers_at_once_leave_what_can_be_read(found, writer):
    row = found[writer]
    first, second = sorted(row["twins"], reverse=True)
    assert first == "written" and (second == "written" or second.startswith("UserError: ")), row["twins"]
    assert row["read after twins"] == "" and row["left by twins"] == []


@pytest.mark.parametrize("writer", WRITERS)
def test_after_a_kill_a_writer_starts_again_and_sweeps_what_was_left(found, writer):
    row = found[writer]
    assert row["signal"] == 9 and row["after a kill"] == "written", row
    open_episodes = "episodes/open/"  # `bag recover` finishes them
    assert [name for name in row["left after a kill"] if not name.startswith(open_episodes)] == []


def test_a_line_cut_short_by_a_kill_does_not_damage_the_next_one(tmp_path):
    path = tmp_path / "a.jsonl"
    for content in ("", "{}\n", '{"a": 1}\n' + "x" * 9000):
        path.write_text(content + '{"schema')
        disk_cases.append_line(path, {"b": 2})
        assert disk_cases.read_lines(path)[-1] == {"b": 2}
        assert len(path.read_text().splitlines()) == content.count("\n") + 1
