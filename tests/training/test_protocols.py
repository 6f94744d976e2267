import dataclasses
from pathlib import Path

import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import DataError, UserError
from m2distill_sim.suites import suites
from m2distill_training.cli import main
from m2distill_training.config import ConfigError, ProtocolConfig
from m2distill_training.engine.protocols import PROTOCOLS, plan, with_protocol
from m2distill_training.experiments.suite_files import in_suite_order
from m2distill_training.presets import debug, libero, small
from m2distill_training.runs.records import read_json
from m2distill_training.runs.run_folder import RunFolder

TEN = [Path(f"{i}.hdf5") for i in range(10)]


def custom(stage_tasks=(), stage_demos=(), **changes):
    return dataclasses.replace(debug(), protocol=ProtocolConfig("custom", stage_tasks, stage_demos), **changes)


def shape(stages) -> list[list[tuple[int, int]]]:
    """List (task, number of demos) for every stage."""
    return [[(split.task, len(split.demos)) for split in stage] for stage in stages]


def test_ten_steps_learns_fifty_demos_of_one_task_after_the_other():
    assert shape(plan(with_protocol(libero(), "ten_steps"), TEN, [50] * 10)) == [[(k, 50)] for k in range(10)]


def test_base6_plus4_learns_six_jointly_then_four_with_ten_demos_and_keeps_five():
    config = with_protocol(small(), "base6_plus4")
    assert shape(plan(config, TEN, [50] * 10)) == [
        [(k, 50) for k in range(6)],
        [(6, 10)],
        [(7, 10)],
        [(8, 10)],
        [(9, 10)],
    ]
    assert config.replay.demos_per_task == 5
    assert config.replay.batch_size == small().replay.batch_size


def test_without_a_protocol_every_task_is_a_stage_and_every_demo_is_learned():
    assert with_protocol(small(), "custom") == small()
    assert shape(plan(small(), TEN[:3], [3, 50, 7])) == [[(0, 3)], [(1, 50)], [(2, 7)]]


def test_custom_stages_and_demos():
    assert shape(plan(custom((2, 1), (4, 2)), TEN[:3], [9, 4, 3])) == [[(0, 4), (1, 4)], [(2, 2)]]
    assert shape(plan(custom((2, 1), (3,)), TEN[:3], [9, 4, 3])) == [[(0, 3), (1, 3)], [(2, 3)]]
    assert shape(plan(custom((), (3, 2)), TEN[:2], [9, 4])) == [[(0, 3)], [(1, 2)]]


def test_multitask_learns_the_same_demos_in_one_stage():
    config = with_protocol(small().with_strategy("multitask"), "base6_plus4")
    jointly = plan(config, TEN, [50] * 10)
    apart = plan(config.with_strategy("er"), TEN, [50] * 10)
    assert jointly == [[split for stage in apart for split in stage]]


def test_the_demos_learned_are_whole_distinct_and_chosen_by_the_seed():
    first, again, other = (plan(custom(stage_demos=(10,), seed=seed), TEN[:2], [50, 50]) for seed in (0, 0, 1))
    assert first == again != other
    for [lesson] in first:
        assert list(lesson.demos) == sorted(set(lesson.demos)) and set(lesson.demos) <= set(range(50))
    assert first[0][0].demos != first[1][0].demos


@pytest.mark.parametrize(
    ("config", "n_demos", "said"),
    [
        (with_protocol(small(), "ten_steps"), [50] * 9, "protocol ten_steps learns 10 tasks .* got 9 datasets"),
        (with_protocol(small(), "base6_plus4"), [50] * 11, "got 11 datasets"),
        (
            with_protocol(small(), "base6_plus4"),
            [50] * 3 + [40] + [50] * 6,
            "3.hdf5 holds 40 demos, stage 1 of protocol base6_plus4 learns 50",
        ),
        (custom((), (3, 2)), [9] * 3, "stage_demos has 2 numbers for 3 stages"),
    ],
)
def test_what_the_data_cannot_give_is_reported(config, n_demos, said):
    files = [Path(f"{i}.hdf5") for i in range(len(n_demos))]
    with pytest.raises(ConfigError, match=said):
        plan(config, files, n_demos)


def test_settings_that_make_no_sense_are_rejected():
    with pytest.raises(ConfigError, match="unknown protocol 'base6plus4'; did you mean 'base6_plus4'"):
        with_protocol(small(), "base6plus4")
    with pytest.raises(ConfigError, match="stage_tasks is 0"):
        ProtocolConfig("custom", (2, 0), ())
    with pytest.raises(ConfigError, match="stage_demos has 2 numbers for 3 stages"):
        ProtocolConfig("custom", (1, 1, 1), (5, 5))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_survive_json(name):
    config = with_protocol(small(), name)
    assert type(config).from_json(config.to_json()) == config


@pytest.mark.parametrize("suite", ["libero_object", "libero_goal", "libero_spatial", "libero_10"])
def test_a_folder_named_like_libero_s_comes_in_the_suite_s_order(suite, tmp_path):
    names = [task.name for task in suites()[suite]]
    files = sorted(tmp_path / f"{name}_demo.hdf5" for name in names)  # never opened: the name suffices
    found, instructions = in_suite_order(files, suite)
    assert [path.stem for path in found] == [f"{name}_demo" for name in names]
    assert instructions == [task.instruction for task in suites()[suite]]


def test_other_names_are_found_by_their_instruction_and_tasks_can_be_chosen(libero_file):
    tasks = suites()["libero_object"]
    files = [libero_file(name, instruction=tasks[i].instruction.upper()) for name, i in (("x", 4), ("y", 0), ("z", 7))]
    found, instructions = in_suite_order(files, "libero_object", [7, 4])
    assert [path.name for path in found] == ["z_demo.hdf5", "x_demo.hdf5"]
    assert instructions == [tasks[7].instruction, tasks[4].instruction]


def test_a_suite_whose_file_is_missing_twice_there_or_unknown_is_rejected(libero_file):
    text = suites()["libero_goal"][3].instruction
    files = [libero_file("a", instruction=text)]
    with pytest.raises(DataError, match="libero_goal needs one file for task 0, open_the_middle_drawer.*got 0 among"):
        in_suite_order(files, "libero_goal")
    with pytest.raises(DataError, match="got 2 among the 2 files"):
        in_suite_order([*files, libero_file("b", instruction=text)], "libero_goal", [3])
    with pytest.raises(UserError, match="unknown suite 'libero_goals'; did you mean 'libero_goal'"):
        in_suite_order(files, "libero_goals")
    with pytest.raises(UserError, match="libero_goal has no task 10"):
        in_suite_order(files, "libero_goal", [10])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "base7"], "unknown protocol 'base7' (allowed: base6_plus4, custom, ten_steps)"),
        (
            ["--protocol=base6_plus4"],
            "protocol base6_plus4 learns 10 tasks in stages of [6, 1, 1, 1, 1], got 1 datasets",
        ),
        (["--protocol.stage-demos", "4"], "holds 3 demos, stage 1 of protocol custom learns 4"),
        (["--suite", "libero_goals"], "unknown suite 'libero_goals'"),
        (["--suite", "libero_object"], "libero_object needs one file for task 0"),
        (["--tasks", "3"], "name the suite with --suite"),
        (["--strategy", "ewc", "--ewc.decay", "2"], "ewc.decay is 2.0, allowed 0 to 1"),
    ],
)
def test_the_command_line_rejects_in_one_line_and_writes_nothing(options, said, libero_file, tmp_path, capsys):
    path = libero_file()
    argv = ["train", "--preset", "debug", "--data", str(path), "--out", str(tmp_path / "run"), *options]
    assert main.run(argv) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_suite_s_tasks_jointly_from_the_command_line(libero_file, tmp_path):
    tasks = suites()["libero_object"]
    for i in (4, 7):
        libero_file(f"{9 - i}", instruction=f"Pick the thing number {i}", seed=i).rename(
            tmp_path / f"{tasks[i].name}_demo.hdf5"
        )  # LIBERO's own files word their instructions like this
    argv = [
        "train",
        "--preset",
        "debug",
        "--strategy",
        "multitask",
        "--data",
        str(tmp_path),
        "--suite",
        "libero_object",
        "--tasks",
        "7",
        "4",
        "--protocol.stage-demos",
        "2",
        "--optim.budget",
        "1",
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    assert main.run(argv) == 0
    run = RunFolder(tmp_path / "run")
    assert [Path(d["path"]).name for d in read_json(run.path / "data.json")] == [
        f"{tasks[7].name}_demo.hdf5",
        f"{tasks[4].name}_demo.hdf5",
    ]
    assert set(load_checkpoint(run.checkpoint(1)).instructions) == {tasks[7].instruction, tasks[4].instruction}
