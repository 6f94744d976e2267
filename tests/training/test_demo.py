"""The checks of `m2distill demo` before it begins and at its end; tests/e2e runs the whole of it."""

import pytest

from m2distill_training.cli import main
from m2distill_training.experiments.demo import shortfall

SMALL = ["demo", "--demos", "1", "--episodes", "1", "--max-steps", "5", "--preset", "debug"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--tasks", "0", "0"], "two different tasks"),
        (["--tasks", "0", "12"], "no task 12 (allowed: 0 to 9)"),
        (["--episodes", "11"], "1 to 10 episodes"),
        (["--max-steps", "0"], "max_steps is 0, expected at least 1"),
        (["--demos", "0"], "demos is 0, expected at least 1"),
        (["--seed", "-1"], "seed is -1, expected at least 0"),
        (["--preset", "smal"], "unknown preset 'smal'; did you mean 'small'?"),
        (["--out", "/dev/null/demo"], "Not a directory"),
    ],
)
def test_what_would_stop_a_later_stage_is_reported_before_the_first(changed, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.run([*SMALL, *changed]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "summary.json").write_text("mine")
    assert main.run([*SMALL, "--out", str(tmp_path)]) == 2
    assert "is not empty and holds no demo" in capsys.readouterr().err
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("summary.json", "mine")]


def test_a_demo_is_not_gone_on_with_under_other_settings(tmp_path, capsys):
    """Else the trials of before would be counted as those that are asked for now."""
    (tmp_path / "demo.json").write_text(
        '{"tasks": [0, 1], "demos": 1, "episodes": 5, "max_steps": 5, "preset": "debug", "seed": 0}'
    )
    assert main.run([*SMALL, "--out", str(tmp_path)]) == 2
    assert "other settings: episodes 5 (requested: 1); choose another --out" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["demo.json"]


@pytest.mark.parametrize(
    ("old", "new", "missed"),
    [
        (5, 4, ""),
        (3, 5, "old task 3 of 5, expected at least 80% of each task"),
        (3, 0, "old task 3 of 5, new task 0 of 5, expected at least 80% of each task"),
    ],
)
def test_the_demo_requires_four_of_five_successes_on_old_and_new_task(old, new, missed):
    tasks = [{"successes": n, "episodes": 5} for n in (old, new)]
    assert shortfall({"stages": [{"tasks": tasks[:1]}, {"tasks": tasks}]}) == missed
