import dataclasses
import json
import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.bringup import system
from m2distill_training import presets
from m2distill_training.cli import main, train
from m2distill_training.cli.progress import show_training
from m2distill_training.cli.train import data_files
from m2distill_training.engine import train as engine
from m2distill_training.promotion.promotion import PromotionRejected
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.utils.device import fast_precision

LEAVES = dict(main.leaves())


def m2distill(*words: str, **options) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "m2distill_training", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_lists_every_command_in_one_section():
    listed = [name for names in main.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(main.COMMANDS)
    page = m2distill("--help").stdout
    assert all(f"  {name} " in page for name in listed)


@pytest.mark.parametrize("name", LEAVES)
def test_help_of_every_command_is_quick(name):
    """Each help page takes less than 0.6 s of CPU, also when other processes keep the machine busy."""
    code = (
        "import sys, time; from m2distill_training.cli import main; "
        f"status = main.run([*{name.split()!r}, '--help']); print(status, time.process_time(), file=sys.stderr); "
        "sys.exit(bool({'torch', 'mujoco', 'h5py', 'matplotlib', 'rclpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{name} imports too much: {done.stderr}"
    status, seconds = done.stderr.split()
    assert status == "0" and float(seconds) < 0.6


@pytest.mark.parametrize("name", LEAVES)
def test_help_of_every_command_has_one_style(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    module = main.load(LEAVES[name])
    assert main.run([*name.split(), "-h"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: m2distill {name}")
    assert f"\n\n  {module.EXAMPLES[0]}\n" in page and f"m2distill {name}" in module.EXAMPLES[0]
    assert not re.search(r"default: \)|\{None\}|\bSTR\b|%%|│", page)
    assert max(map(len, page.splitlines())) <= 130  # examples are not wrapped
    parser = main.make_parser(f"m2distill {name}", module, [])
    undescribed = [action.dest for action in parser._actions if not action.help]
    assert undescribed == []


def test_options_of_one_meaning_have_one_name_and_one_default():
    """An option of this table is the same in every command that has it."""
    defaults = {"max_steps": 600, "sampling": DEFAULT_SAMPLING, "workers": None, "image_size_px": 128}
    others = {
        ("bench experts", "workers"),  # one core is measured
        ("bench distill", "workers"),  # processes of this machine alone
        ("run", "max_steps"),  # a robot has no step limit
        ("demo", "max_steps"),  # 300: the control's failures cost time
    }
    gone = {"trials", "size_px", "image_px", "step_limit"}
    for name, entry in LEAVES.items():
        parser = main.make_parser(f"m2distill {name}", main.load(entry), [])
        names = {option.lstrip("-").replace("-", "_") for option in parser._option_string_actions}
        if name not in ("train", "run"):  # they also accept the names of fields and parameters
            assert not names & gone, name
        for option, default in defaults.items():
            if option in names and (name, option) not in others and name != "train":
                assert parser.get_default(option) == default, (name, option)


def test_budget_replay_and_image_size_have_their_short_names_in_train(tmp_path):
    words = ["--data", "x", "--out", "y", "--budget", "7", "--replay", "3", "--image-size-px", "32"]
    parser = main.make_parser("m2distill train", train, words)
    options = parser.parse_args()
    config = train.config_of(options)
    assert (config.optim.budget, config.replay.demos_per_task, config.image_px) == (7, 3, 32)
    dotted = ["--data", "x", "--out", "y", "--optim.budget", "7", "--replay.demos_per_task=3", "--image-px", "32"]
    options = main.make_parser("m2distill train", train, dotted).parse_args()
    assert train.config_of(options) == config


def test_every_setting_of_a_preset_is_an_option_of_train():
    words = ["--data", "x", "--out", "y", "--preset", "libero", "--model.stages.1.width", "96", "--model.stem-pool"]
    options = main.make_parser("m2distill train", train, [*words, "false"]).parse_args()
    config = train.config_of(options)
    assert (config.model.stages[1].width, config.model.stem_pool) == (96, False)
    untouched = main.make_parser("m2distill train", train, words[:6]).parse_args()
    assert train.config_of(untouched) == presets.libero()


@pytest.mark.parametrize("words", [["--dry-run"], ["--dry-run", "true"], ["--dry-run=true"]])
def test_a_boolean_option_needs_no_value(words):
    assert system.read_arguments(words)[0].dry_run is True
    assert system.read_arguments([*words[:0], "--dry-run", "false"])[0].dry_run is False


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--versoin"], "unknown option '--versoin'; did you mean '--version'?"),
        (["bag", "recver"], "unknown command 'recver'; did you mean 'recover'?"),
        (["evaluate", "x", "--epsiodes", "3"], "unknown option '--epsiodes'; did you mean '--episodes'?"),
        (["evaluate", "x", "--episode", "3"], "unknown option '--episode'; did you mean '--episodes'?"),
        (["train", "--optim.budgte", "3"], "unknown option '--optim.budgte'; did you mean '--optim.budget'?"),
        (["run", "--armm", "x"], "unknown option '--armm'; did you mean '--arm'?"),
        (["run", "--arm", "franka_servos"], "unknown arm 'franka_servos'; did you mean 'franka_servo'?"),
        (["run", "--dry-run", "maybe"], "--dry-run is 'maybe', expected true or false"),
        (["instruct", "--spot"], "unknown option '--spot'; did you mean '--stop'?"),
        (["service", "--set", "task=1"], "--set requires a service"),
        (["evaluate", "x", "--episodes", "ten"], "--episodes is 'ten', expected a whole number"),
        (["evaluate", "x", "--sampling", "mod"], "unknown sampling 'mod'; did you mean 'mode'?"),
        (["evaluate", "x", "y"], "unexpected argument 'y'"),
        (["rollback"], "the following arguments are required: --run"),
        (["learn", "--run", "x", "--data", "a", "b"], "--data has 2 files, expected one"),
        (["promote", "--run", "x", "--nats", "-1"], "nats is -1.0, allowed at least 0"),
        (["train", "--preset", "smal"], "unknown preset 'smal'; did you mean 'small'?"),
        (["train", "--preset=debug", "--strategy", "lwf", "--data", "x", "--out", "y"], "unknown strategy 'lwf'"),
        (["train", "--preset", "debug", "--data", "absent.hdf5", "--out", "y"], "absent.hdf5: no such file"),
        (["train", "--preset", "debug", "--device", "abacus", "--data", "x", "--out", "y"], "unknown device 'abacus'"),
        (["train", "--preset", "debug", "--device", "meta", "--data", "x", "--out", "y"], "unknown device 'meta'"),
        (["collect", "--suite", "libero_objekt"], "unknown suite 'libero_objekt'; did you mean 'libero_object'?"),
        (["collect", "--suite", "libero_90"], "no scripted expert for libero_90"),
        (["collect", "--tasks", "3", "3"], "tasks [3, 3] given"),
        (["collect", "--assets", "nowhere"], "nowhere does not exist"),
        (["collect", "--out", "/dev/null/demos"], ": Not a directory; choose another path"),
        (["collect", "--out", "n" * 300], "File name too long"),
        (["report", "nowhere"], "nowhere does not exist"),
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
        (["import", "robosuite-demos", "out", "--image-size-px", "8"], "image_size_px is 8, allowed 16 to 1024"),
        (["import", "lerobot", "absent", "--out", "out"], "absent/meta/info.json: no such file"),
        (["export", "lerobot", "absent.hdf5", "--out", "out"], "absent.hdf5: no such file"),
    ],
)
def test_what_the_user_can_fix_is_one_line_and_exit_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.run(argv) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("m2distill: error: ")
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("m2distill_training.report.write_report", lambda *_: Path("/nowhere/at/all").read_text())
    with pytest.raises(FileNotFoundError):
        main.run(["report", "runs/two_tasks"])


def test_a_result_below_its_criterion_ends_with_status_1(monkeypatch, capsys):
    def reject(*_, **__):
        raise PromotionRejected("not promoted")

    monkeypatch.setattr("m2distill_training.promotion.promotion.promote", reject)
    assert main.run(["promote", "--run", "x"]) == 1
    assert capsys.readouterr().err == "m2distill: error: not promoted\n"
    monkeypatch.setattr("m2distill_training.experiments.demo.demo", lambda plan: 1)
    assert main.run(["demo"]) == 1


def test_what_means_nothing_for_a_run_folder_is_rejected(tmp_path, capsys):
    (tmp_path / "data.json").write_text("[]")
    assert main.run(["evaluate", str(tmp_path), "--tasks", "3"]) == 2
    assert "is a run folder" in capsys.readouterr().err


def test_a_folder_without_data_is_named(tmp_path, capsys):
    assert main.run(["train", "--preset", "debug", "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    assert "holds no *.hdf5 file" in capsys.readouterr().err


@pytest.mark.slow
def test_training_from_the_command_line_interrupted_and_resumed(libero_file, tmp_path):
    """A real process, a real Ctrl-C: exit status 130, and the same command continues the run."""
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
    assert errors.splitlines()[-1] == "m2distill: interrupted; repeat the same command to continue"
    assert RunFolder(out).state(1).is_file()
    done = RunFolder(out).load_state(1)["step"]
    assert done >= 1
    refused = subprocess.run([*argv, "--seed", "7"], check=False, capture_output=True, text=True, timeout=60)
    assert (refused.returncode, "seed was 0, now 7" in refused.stderr) == (2, True)
    assert "training" not in refused.stdout  # nothing began
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as again:
        line = next(line for line in again.stdout if "/100000" in line)
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=60)
    assert int(re.search(r"(\d+)/100000", line)[1]) > done  # the same command continued


def test_data_folders_are_taken_in_order_of_name(tmp_path):
    for name in ("b.hdf5", "a.hdf5", "notes.txt", "._a.hdf5"):  # the last as macOS writes beside a file
        (tmp_path / name).touch()
    assert data_files((tmp_path, Path("c.hdf5"))) == [tmp_path / "a.hdf5", tmp_path / "b.hdf5", Path("c.hdf5")]


@pytest.mark.parametrize("tasks", [["0,3,1"], ["0", "3", "1"]])
def test_numbers_may_be_parted_by_commas_or_spaces(tasks, monkeypatch, tmp_path):
    taken = {}
    collect = "m2distill_training.experiments.collect.collect"
    monkeypatch.setattr(collect, lambda suite, tasks, *_, **__: taken.update(tasks=tasks) or [])
    assert main.run(["collect", "--tasks", *tasks, "--demos", "1", "--out", str(tmp_path)]) == 0
    assert taken["tasks"] == [0, 3, 1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["tasks"], ["info"]])
def test_a_closed_pipe_is_no_error(words):
    with subprocess.Popen(
        [sys.executable, "-m", "m2distill_training", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0


def test_version():
    done = m2distill("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "m2distill")
    assert re.fullmatch(r"m2distill \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.slow
def test_info_describes_the_installation():
    done = m2distill("info", "--json")
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert found["packages"]["torch"] and found["python"] == platform.python_version()
    assert found["renderer"]["works"] and found["renderer"]["device"]
    assert set(found["text_encoders"]) == {"all-MiniLM-L6-v2", "bert-base-cased"}
    assert found["cpu_precision"] == fast_precision("cpu")
    printed = m2distill("info").stdout.splitlines()
    assert {line.split()[0] for line in printed} >= {"m2distill", "python", "torch", "mujoco", "renderer", "gpu", "ros"}


def test_info_names_what_does_not_work(tmp_path):
    """An interpreter whose torch and rclpy raise, an unknown renderer, no home and no git: lines, no traceback."""
    for name in ("torch", "rclpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken on purpose')")
    broken = {"PYTHONPATH": str(tmp_path), "MUJOCO_GL": "glass", "HOME": "/nonexistent", "PATH": "/nonexistent"}
    done = m2distill("info", env={**os.environ, **broken, "HF_HUB_OFFLINE": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:14].strip(): line[15:] for line in done.stdout.splitlines()}
    assert rows["gpu"] == "unknown: torch does not work: broken on purpose"
    assert "does not work: broken on purpose" in rows["ros 2"]
    assert "does not work: MUJOCO_GL is 'glass', allowed egl or osmesa" in rows["renderer"]
    assert "does not exist" in rows["hub cache"] and "offline mode" in rows["hub cache"]


def completions(line: str) -> list[str]:
    """What argcomplete offers for a command line that ends at the cursor."""
    code = "from m2distill_training.cli.main import main; main()"
    variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    variables["_ARGCOMPLETE_STDOUT_FILENAME"] = "/dev/stdout"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True, timeout=60, check=True
    )
    return [word.strip() for word in done.stdout.split("\n")]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("m2distill eval", ["evaluate"]),
        ("m2distill bag ", ["recover"]),
        ("m2distill evaluate --samp", ["--sampling"]),
        ("m2distill evaluate x --sampling mo", ["mode"]),
        ("m2distill import bag --unl", ["--unlabelled"]),
        ("m2distill train --optim.bud", ["--optim.budget", "--optim.budget-unit"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(line, offered):
    pytest.importorskip("argcomplete")
    assert sorted(completions(line)) == offered


def test_the_remaining_time_is_that_of_all_stages(libero_file, tmp_path, capsys):
    files = [libero_file(name, instruction=name, seed=seed) for seed, name in enumerate(("one", "two"))]
    config = dataclasses.replace(presets.debug(), optim=dataclasses.replace(presets.debug().optim, budget=3))
    seen = []
    engine.train(config, files, tmp_path / "run", on_step=seen.append)
    assert [(p.stage, p.steps - p.step + p.later_steps) for p in seen] == [
        (1, 5),
        (1, 4),
        (1, 3),
        (2, 2),
        (2, 1),
        (2, 0),
    ]
    assert seen[0].seconds_left == pytest.approx(5 / seen[0].steps_per_s)
    with show_training("m2distill") as on_step:
        on_step(dataclasses.replace(seen[0], step=3, later_steps=120, steps_per_s=2.0))
    assert capsys.readouterr().out.rstrip().endswith("eta 1:00")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "policy", "spins"), [({}, "PASSIVE", "500"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", "30000000000")]
)
def test_threads_of_openmp_that_wait_soon_sleep_unless_the_user_says_otherwise(given, policy, spins):
    """OpenMP prints what it has read when torch loads it."""
    code = """
import sys
from m2distill_training.cli import main
sys.argv = ["m2distill", "--version"]
try:
    main.main()
finally:
    import torch
"""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment = inherited | given | {"OMP_DISPLAY_ENV": "verbose"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{policy}'" in ended.stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in ended.stderr
