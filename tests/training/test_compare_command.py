"""`m2distill compare`: its tables, its figure and its gate."""

import csv
import io
import json

import cv2
import pytest
from evaluated_runs import FORGETS, KEEPS, make_run_fixture

from m2distill_policy.errors import UserError
from m2distill_training.cli import compare as command
from m2distill_training.cli import main
from m2distill_training.evaluation.compare import Comparison, ComparisonResult, compare, failed_gates
from m2distill_training.evaluation.paired import METRICS
from m2distill_training.report.comparison import FORMATS
from m2distill_training.runs.records import write_json

make_run = make_run_fixture


@pytest.fixture
def study(make_run, tmp_path):
    """A study folder with three seeds of two variants, and the run of their first stage."""
    for seed in range(3):
        make_run(f"study/runs/er-{seed}", "er", seed, FORGETS)
        make_run(f"study/runs/m2distill-{seed}", "m2distill", seed, KEEPS)
    (tmp_path / "study" / "runs" / "first-0").mkdir()
    write_json(tmp_path / "study" / "study.json", {})
    return tmp_path / "study"


def test_a_study_is_compared_by_its_variants(study, capsys):
    assert main.run(["compare", str(study), "--baseline", "er", "--candidate", "m2distill", "--metrics", "final"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[:6] == ["final", "success", "m2distill", "er", "3", "80.0"]
    assert "+30.0 (" in out and "3 common seeds: p cannot be below 0.25" in out
    named = compare([f"before={study}", f"after={study}"], metrics=["final"], resamples=100)
    assert list(named.groups) == ["before:er", "before:m2distill", "after:er", "after:m2distill"]


@pytest.mark.parametrize("format_name", ["text", "markdown", "latex", "csv", "json"])
def test_every_format_has_the_same_numbers(study, tmp_path, format_name, capsys):
    file = tmp_path / "out" / "compared"
    words = ["compare", str(study), "--metrics", "nbt", "--format", format_name]
    assert main.run(words) == 0
    printed = capsys.readouterr().out
    assert main.run([*words, "--out", str(file)]) == 0
    assert file.read_text() == printed.partition("next: ")[0]
    assert str(file) in capsys.readouterr().out.splitlines()[-2:]
    if format_name == "csv":
        (row,) = csv.DictReader(io.StringIO(printed))
        assert float(row["difference"]) == pytest.approx(-0.375) and row["seeds"] == "0 1 2"
    elif format_name == "json":
        (row,) = json.loads(printed)["comparisons"]
        assert row["difference"] == pytest.approx(-0.375) and row["seeds"] == [0, 1, 2]
    else:
        assert "-37.5 (" in printed


def test_the_command_offers_every_format_and_metric():
    assert tuple(FORMATS) == command.FORMATS
    assert (*command.METRICS, *(f"{name}_per_stage" for name in command.METRICS)) == tuple(METRICS)


def test_latex_escapes_names(study, capsys):
    assert main.run(["compare", f"a_b%={study}/runs/er-0", f"c={study}/runs/m2distill-0", "--format", "latex"]) == 0
    out = capsys.readouterr().out
    assert r"a\_b\%" in out and out.rstrip().endswith(r"\end{tabular}")


def test_the_gate_decides_by_the_end_of_the_interval_in_the_good_direction():
    def result(metric, interval):
        higher = METRICS[metric].higher_is_better
        one = Comparison("a", "b", metric, higher, (0, 1), 0.5, 0.5, 0.0, interval, (0, 0), None, 1.0, 1.0, 0)
        return ComparisonResult({}, {}, 100, 0, (one,), ())

    assert not failed_gates(result("auc", (-0.05, 0.2)), {"auc": 0.05})
    assert failed_gates(result("auc", (-0.06, 0.2)), {"auc": 0.05}) == [
        "gate auc: b may be worse than a by 6.0 percentage points, allowed 5.0"
    ]
    assert not failed_gates(result("nbt", (-0.3, 0.05)), {"nbt": 0.05})
    assert failed_gates(result("nbt", (-0.3, 0.06)), {"nbt": 0.05})
    assert failed_gates(result("auc", (-0.001, 0.2)), {"auc": 0.0})
    with pytest.raises(UserError, match=r"unknown metric of --gate 'nbt'"):
        failed_gates(result("auc", (0, 0)), {"nbt": 0.05})


def test_the_exit_status_is_that_of_the_gate(study, capsys):
    words = ["compare", str(study), "--gate"]
    assert main.run([*words, "final:0", "--gate", "nbt:0.05"]) == 0
    assert main.run([*words, "final:0", "--baseline", "m2distill"]) == 1
    assert "gate final: er may be worse than m2distill by" in capsys.readouterr().err
    for wrong in ("final", "final:x", "final:-0.1", "final:5", ":0.1"):
        assert main.run([*words, wrong]) == 2
        assert "expected METRIC:MARGIN with a margin from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_figure_shows_one_point_per_seed(study, tmp_path, suffix):
    file = tmp_path / f"differences.{suffix}"
    assert main.run(["compare", str(study), "--metrics", "auc", "final", "--figure", str(file)]) == 0
    if suffix == "png":
        image = cv2.imread(str(file))
        assert min(image.shape[:2]) > 100 and image.std() > 5
    else:
        again = tmp_path / "again.svg"
        assert main.run(["compare", str(study), "--metrics", "auc", "final", "--figure", str(again)]) == 0
        assert again.read_text() == file.read_text() and "<svg" in file.read_text()


def test_a_figure_of_another_kind_is_rejected(study, capsys):
    assert main.run(["compare", str(study), "--figure", "a.eps"]) == 2
    assert "has the suffix '.eps', expected .svg or .png or .pdf" in capsys.readouterr().err
