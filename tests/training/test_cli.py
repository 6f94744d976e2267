import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m2distill_training.cli import main
from m2distill_training.cli.train import _files
from m2distill_training.runs.run_folder import RunFolder


def test_help_names_every_command_without_importing_torch():
    code = (
        "import sys; from m2distill_training.cli import main; main.run(['--help']); "
        "sys.exit(bool({'torch', 'mujoco', 'tyro', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name}" in done.stdout for name in ("demo", "collect", "train", "evaluate", "report", "import"))


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_its_functions(name):
    command = main.COMMANDS[name]
    assert bool(command.function) != bool(command.subcommands)
    for function in (command.subcommands or {name: command.function}).values():
        assert main._imported(function).__doc__ or command.reads_arguments


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "--preset", "smal"], "unknown preset 'smal'; did you mean 'small'?"),
        (["train", "--preset=debug", "--strategy", "lwf", "--data", "x", "--out", "y"], "unknown strategy 'lwf'"),
        (["train", "--preset", "debug", "--data", "absent.hdf5", "--out", "y"], "absent.hdf5: no such file"),
        (["train", "--preset", "debug", "--device", "abacus", "--data", "x", "--out", "y"], "unknown device 'abacus'"),
        (["train", "--preset", "debug", "--device", "meta", "--data", "x", "--out", "y"], "unknown device 'meta'"),
        (["collect", "--suite", "libero_objekt"], "unknown suite 'libero_objekt'; did you mean 'libero_object'?"),
        (["collect", "--suite", "libero_90"], "no scripted expert for libero_90"),
        (["collect", "--tasks", "3", "3"], "tasks [3, 3] given"),
        (["collect", "--assets", "nowhere"], "nowhere does not exist"),
        (["collect", "--out", "/dev/null/demos"], "/dev/null/demos: Not a directory; choose another path"),
        (["collect", "--out", "n" * 300], "File name too long"),
        (["report", "nowhere"], "nowhere has no evaluation.json"),
        (["evaluate", "nowhere"], "no checkpoint at nowhere"),
        (["evaluate", "nowhere", "--tasks", "12"], "libero_object has no task 12 (allowed: 0 to 9)"),
        (["evaluate", "nowhere", "--tasks", "1", "--suite", "libero_object", "libero_goal"], "--suite names 2"),
        (["evaluate", "nowhere", "--tasks", "1", "--max-steps", "0"], "max_steps is 0, expected at least 1"),
        (["evaluate", "nowhere", "--tasks", "1", "--episodes", "0"], "episodes is 0"),
        (["evaluate", "nowhere", "--tasks", "1", "--seed", "-1"], "seed is -1, expected at least 0"),
        (["evaluate", "nowhere", "--workers", "-1"], "workers is -1, expected at least 1"),
        (["evaluate", "nowhere", "--tasks", "4", "4"], "tasks [4, 4] given, expected at least one and none twice"),
        (["import", "libero-checkpoint", "absent.pth", "out"], "absent.pth"),
        (["import", "robosuite-demos", "out", "--file", "absent.hdf5"], "absent.hdf5: not a readable HDF5 file"),
        (["import", "robosuite-demos", "out", "--size-px", "8"], "size_px is 8, allowed 16 to 1024"),
        (["import", "lerobot", "absent", "--out", "out"], "absent/meta/info.json: no such file"),
        (["export", "lerobot", "absent.hdf5", "--out", "out"], "absent.hdf5: no such file"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.run(argv) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("m2distill: ")
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Between an option's name and its default stands nothing but its type.
UNDESCRIBED = re.compile(r"(--[a-z-]+) (?:[][{}|A-Z. ]|None)*\((?:default|required)")


@pytest.mark.parametrize(
    "command",
    [
        ["demo"],
        ["collect"],
        ["evaluate"],
        ["report"],
        ["import", "libero-checkpoint"],
        ["import", "robosuite-demos"],
        ["import", "bag"],
        ["import", "lerobot"],
        ["export", "lerobot"],
    ],
)
def test_help_describes_every_option_and_gives_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main.run([*command, "--help"])
    page = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Example: m2distill {' '.join(command)} " in page
    assert "(default" in page and UNDESCRIBED.findall(page) == []


def test_an_option_without_a_description_would_be_found():
    page = "--suite STR (default: x) --tasks [INT [INT ...]] (required) --out PATH where (default: x)"
    assert UNDESCRIBED.findall(page) == ["--suite", "--tasks"]


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("m2distill_training.report.write_report", lambda *_: Path("/nowhere/at/all").read_text())
    with pytest.raises(FileNotFoundError):
        main.run(["report", "runs/two_tasks"])


def test_what_means_nothing_for_a_run_folder_is_refused(tmp_path, capsys):
    (tmp_path / "data.json").write_text("[]")
    assert main.run(["evaluate", str(tmp_path), "--tasks", "3"]) == 2
    assert "is a run folder" in capsys.readouterr().err


def test_a_folder_without_data_is_named(tmp_path, capsys):
    assert main.run(["train", "--preset", "debug", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "holds no *.hdf5 file" in capsys.readouterr().err


def test_training_from_the_command_line_interrupted_and_resumed(libero_file, tmp_path):
    """A real process, a real Ctrl-C: exit 130, the line that says how to go on, and that line works."""
    out = tmp_path / "run"
    argv = [
        sys.executable,
        "-c",
        "from m2distill_training.cli.main import main; main()",
        "train",
        "--preset",
        "debug",
        "--optim.budget",
        "100000",
        "--data",
        str(libero_file()),
        "--out",
        str(out),
    ]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    for line in process.stdout:
        if "/100000" in line:  # the first line of progress
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"go on with: m2distill train --preset debug --optim.budget 100000 --data {tmp_path}" in errors
    assert errors.splitlines()[-2].endswith("--resume")
    assert errors.splitlines()[-1] == "m2distill: interrupted"
    assert RunFolder(out).state(0).is_file()
    done = RunFolder(out).load_state(0)["step"]
    assert done >= 1
    refused = subprocess.run(
        [*argv, "--resume", "--seed", "7"], check=False, capture_output=True, text=True, timeout=60
    )
    assert (refused.returncode, "seed was 0, now 7" in refused.stderr) == (2, True)


def test_data_folders_are_taken_in_order_of_name(tmp_path):
    for name in ("b.hdf5", "a.hdf5", "notes.txt"):
        (tmp_path / name).touch()
    assert _files((tmp_path, Path("c.hdf5"))) == [tmp_path / "a.hdf5", tmp_path / "b.hdf5", Path("c.hdf5")]


@pytest.mark.parametrize("tasks", [["0,3,1"], ["0", "3", "1"]])
def test_numbers_may_be_parted_by_commas_or_spaces(tasks, monkeypatch, tmp_path):
    taken = {}
    monkeypatch.setattr("m2distill_sim.collect.collect", lambda suite, tasks, *_, **__: taken.update(tasks=tasks) or [])
    assert main.run(["collect", "--tasks", *tasks, "--episodes", "1", "--out", str(tmp_path)]) == 0
    assert taken["tasks"] == (0, 3, 1)


def test_a_reader_that_has_had_enough_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "m2distill_training", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0
