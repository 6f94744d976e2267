import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m2distill_training import cli
from m2distill_training.run import RunFolder


def test_help_names_every_command_without_importing_torch():
    code = ("import sys; from m2distill_training import cli; cli.run(['--help']); "
            "sys.exit(bool({'torch', 'mujoco', 'tyro', 'h5py'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name}" in done.stdout for name in ("demo", "collect", "train", "evaluate", "report", "import"))


@pytest.mark.parametrize(("argv", "said"), [
    (["trian"], "unknown command 'trian'; did you mean 'train'?"),
    (["train", "--preset", "smal"], "unknown preset 'smal'; did you mean 'small'?"),
    (["train", "--preset=debug", "--strategy", "ewc", "--data", "x", "--out", "y"], "unknown strategy 'ewc'"),
    (["train", "--preset", "debug", "--data", "absent.hdf5", "--out", "y"], "absent.hdf5: no such file"),
    (["train", "--preset", "debug", "--device", "abacus", "--data", "x", "--out", "y"], "device 'abacus' cannot be"),
    (["report", "nowhere"], "nowhere has no evaluation.json"),
    (["evaluate", "nowhere"], "no checkpoint at nowhere"),
    (["import", "libero-checkpoint", "absent.pth", "out"], "absent.pth"),
])
def test_what_the_user_can_mend_is_one_line_and_exit_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(argv) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("m2distill: ")
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_data_is_named(tmp_path, capsys):
    assert cli.run(["train", "--preset", "debug", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "holds no *.hdf5 file" in capsys.readouterr().err


def test_training_from_the_command_line_interrupted_and_resumed(libero_file, tmp_path):
    """A real process, a real Ctrl-C: exit 130, the line that says how to go on, and that line works."""
    out = tmp_path / "run"
    argv = [sys.executable, "-c", "from m2distill_training.cli import main; main()", "train", "--preset", "debug",
            "--optim.budget", "100000", "--data", str(libero_file()), "--out", str(out)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})
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
    refused = subprocess.run([*argv, "--resume", "--seed", "7"], check=False, capture_output=True, text=True,
                             timeout=60)
    assert (refused.returncode, "seed was 0, now 7" in refused.stderr) == (2, True)


def test_data_folders_are_taken_in_order_of_name(tmp_path):
    for name in ("b.hdf5", "a.hdf5", "notes.txt"):
        (tmp_path / name).touch()
    assert cli._files((tmp_path, Path("c.hdf5"))) == [tmp_path / "a.hdf5", tmp_path / "b.hdf5", Path("c.hdf5")]
