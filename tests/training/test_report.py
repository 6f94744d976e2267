"""The page, from runs really trained and episodes made up; and as a browser lays it out, where one is installed."""

import base64
import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_reading import FRAME, PROBE, Reader, assert_legible

from m2distill_policy.errors import UserError
from m2distill_sim.suites import HELD_OUT, find_task
from m2distill_sim.video import write_video
from m2distill_training.cli import main
from m2distill_training.engine.train import train
from m2distill_training.evaluation.drift import measure_drift
from m2distill_training.evaluation.evaluate import write_evaluation
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec
from m2distill_training.presets import debug
from m2distill_training.report import figures, page, write_report
from m2distill_training.report.runs import load_runs
from m2distill_training.report.styles import method_colors, run_styles
from m2distill_training.runs.records import read_json
from m2distill_training.runs.run_folder import RunFolder

SUITE = "libero_object"
TASKS = (4, 2, 7)
SETTINGS = {"episodes_per_task": 10, "sampling": "stochastic", "seed": 0, "max_steps": 600}
WINS = {"m2distill": [[9], [8, 10], [8, 9, 7]], "finetune": [[9], [2, 10], [0, 1, 9]]}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_libero) -> dict[str, Path]:
    """Two strategies trained on three tasks; the first WINS[strategy][stage - 1][task] episodes succeed."""
    root = tmp_path_factory.mktemp("runs")
    files = [write_libero(root / f"{task}_demo.hdf5", find_task(SUITE, task).instruction, seed=task) for task in TASKS]
    folders = {}
    for strategy, wins in WINS.items():
        config = debug().with_strategy(strategy)
        run = train(config, files, root / strategy)
        folders[strategy] = run.path
        write_evaluation(run.path, [episodes(run, stage, won) for stage, won in enumerate(wins, 1)], SETTINGS)
        measure_drift(run.path)
    return folders


def episodes(run: RunFolder, stage: int, wins: list[int]) -> list[RolloutResult]:
    results = []
    for task, won in zip(TASKS, wins, strict=False):
        for n, state in enumerate(HELD_OUT):
            video = run.path / "videos" / f"{task}.mp4" if n == 0 and stage == len(TASKS) else None
            if video:
                frames = [np.full((48, 64, 3), 40 * i, np.uint8) for i in range(5)]
                video.parent.mkdir(exist_ok=True)
                write_video(video, frames, 20.0)
            job = RolloutSpec(run.checkpoint(stage), SUITE, task, state, "stochastic", 0, 600, None)
            results.append(RolloutResult(job, n < won, 100, "", video))
    return results


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("report") / "compared.html"
    write_report(out, list(runs.values()), notes="a < b")
    return out


def test_tables_show_the_metrics_with_intervals_and_every_task(runs, report):
    rows = Reader(report.read_text()).rows
    result = next(row for row in rows if row[0] == "m2distill")
    assert result[1].startswith("87% (")  # (9 + 10 + 7) / 30
    assert result[2].startswith("10% (")  # ((1 + 1) / 2 + 1) / 2 of 10
    control = next(row for row in rows if row[0] == "finetune")
    assert control[2].startswith("85% (")  # ((7 + 9) / 2 + 9) / 2 of 10
    assert ["instruction", "m2distill", "finetune"] in rows
    assert [find_task(SUITE, TASKS[0]).instruction, "8 of 10 (49% to 94%)", "0 of 10 (0% to 28%)"] in rows


def test_the_page_refers_to_nothing_outside_itself(report):
    addresses = Reader(report.read_text()).addresses
    assert all(address.startswith(("data:", "#films-")) for address in addresses)
    assert sum(address.startswith("data:image/svg+xml") for address in addresses) == 5
    assert sum(address.startswith("data:video/mp4") for address in addresses) == 6
    assert "<script" not in report.read_text()
    assert "a &lt; b" in report.read_text()


def test_every_figure_is_a_image_of_its_own_too(report):
    names = {path.name for path in (report.parent / "compared_figures").iterdir()}
    of_runs = [f"{kind}_{run}" for kind in ("success", "losses") for run in WINS]
    figures = ("comparison", "forgetting", "drift", *of_runs)
    assert names == {f"{name}.{suffix}" for name in figures for suffix in ("png", "svg", "pdf")}
    for path in (report.parent / "compared_figures").glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF-") and path.with_suffix(".svg").read_text().endswith("</svg>\n")
    for path in (report.parent / "compared_figures").glob("*.png"):
        image = cv2.imread(str(path))
        assert min(image.shape[:2]) > 100
        assert image.std() > 5  # something is drawn


def test_the_heat_map_is_darker_where_success_is_higher(report):
    """Cells of the control's matrix, found in the figure by their colour: 0, 10, 20, 90, 90 and 100 percent."""
    image = cv2.imread(str(report.parent / "compared_figures" / "success_finetune.png"))
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    cells = colours[counts > 0.02 * len(image) * image.shape[1]].astype(int)
    green = {tuple(c) for c in cells} - {(255, 255, 255)}
    assert len(green) == 5  # 90 % is there twice
    assert max(sum(c) for c in green) - min(sum(c) for c in green) > 300


def test_runs_that_differ_by_their_seed_are_averaged(runs, tmp_path):
    other = tmp_path / "seed1"
    shutil.copytree(runs["m2distill"], other)
    for name, change in (("config.json", {"seed": 1}), ("evaluation.json", {})):
        value = {**read_json(other / name), **change}
        if name == "evaluation.json":
            value["metrics"] = {**value["metrics"], "fwt": value["metrics"]["fwt"] - 0.2}
        (other / name).write_text(json.dumps(value))
    write_report(tmp_path / "report.html", [runs["m2distill"], other, runs["finetune"]])
    rows = Reader((tmp_path / "report.html").read_text()).rows
    mean = next(row for row in rows if row[0] == "m2distill, m2distill (seed1)")
    assert mean[1:3] == ["2", "77% (0% to 100%)"]  # 0.7667 +- 12.706 * 0.1 by the t interval of two seeds, cut


def test_two_runs_of_one_seed_count_as_one_seed(runs, tmp_path):
    """FWT 0.87 twice with seed 0, and 0.67 with seed 1: the mean over seeds is 0.77, over runs it would be 0.80."""
    again, other = tmp_path / "again", tmp_path / "seed1"
    for copy in (again, other):
        shutil.copytree(runs["m2distill"], copy)
    (other / "config.json").write_text(json.dumps({**read_json(other / "config.json"), "seed": 1}))
    value = read_json(other / "evaluation.json")
    value["metrics"]["fwt"] -= 0.2
    (other / "evaluation.json").write_text(json.dumps(value))
    write_report(tmp_path / "report.html", [runs["m2distill"], again, other])
    rows = Reader((tmp_path / "report.html").read_text()).rows
    mean = next(row for row in rows if row[0].startswith("m2distill, "))
    assert mean[1] == "2" and mean[2].startswith("77% (")


def test_columns_of_numbers_are_aligned_to_the_right_with_their_headings():
    numbers = ("87% (70% to 95%)", "-5% (-9% to 1%)", "-3%", "0.5", 4, -4, "-", "+2", "8 of 10 (49% to 94%)")
    for text in (*numbers, "20, 10 of an earlier task"):
        assert page._table(["x"], [[text]]).count("class=n") == 2, text
    for text in ("-dashed", "195e420814c6ccec2270bbec", "f8d6717e1170", "2 pots of milk"):
        assert page._table(["x"], [[text], [1]]).count("class=n") == 0, text
    assert "td.n,th.n{text-align:right" in page.STYLE


def test_every_source_and_machine_that_trained_is_named(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["m2distill"], run)
    [entry] = read_json(run / "environment.json")
    here, there = {**entry, "source": "aaa"}, {**entry, "source": "bbb", "cpu": "Another one"}

    def told(entries: list[dict]) -> list[tuple[str, str]]:
        """(starts, source) as the page has them; `there` names its machine as well."""
        (run / "environment.json").write_text(json.dumps(entries))
        write_report(tmp_path / "report.html", [run])
        page = (tmp_path / "report.html").read_text()
        assert ("on Another one, " in page) == (there in entries)
        return re.findall(r'"note">Trained (.*?)with Python .*?; source (\w+)\.<', page)

    assert told([here]) == [("", "aaa")]
    assert told([here, there, here]) == [("in 2 starts ", "aaa"), ("", "bbb")]
    assert told([]) == []


def test_runs_of_one_name_have_distinct_labels(runs, tmp_path):
    copy = tmp_path / "m2distill"
    shutil.copytree(runs["m2distill"], copy)
    write_report(tmp_path / "report.html", [runs["m2distill"], copy])
    rows = Reader((tmp_path / "report.html").read_text()).rows
    names = [f"{path.parent.name}/m2distill" for path in (runs["m2distill"], copy)]
    assert [row[0] for row in rows[1:3]] == [f"m2distill ({name})" for name in names]


def test_libero_s_variant_is_shown_under_its_name(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["m2distill"], run)
    results = [episodes(RunFolder(run), stage, won) for stage, won in enumerate(WINS["m2distill"], 1)]
    write_evaluation(run, results, SETTINGS, curves=[[0.0, 0.9], [0.0, 1.0], [0.5, 0.7]])
    write_report(tmp_path / "report.html", [run])
    rows = Reader((tmp_path / "report.html").read_text()).rows
    assert ["m2distill (run)", "52%", "7%", "66%"] in rows


def test_the_command_measures_drift_when_asked(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs["finetune"], run)
    (run / "drift.json").unlink()
    assert main.run(["report", str(run)]) == 0
    assert "Not measured" in (run / "report.html").read_text()
    assert main.run(["report", str(run), "--drift"]) == 0
    assert "Not measured" not in (run / "report.html").read_text()
    assert (run / "report_figures" / "drift.png").is_file()
    assert capsys.readouterr().out.splitlines()[-2] == str(run / "report.html")


def test_two_tasks_of_one_instruction_have_rows_and_panels_of_their_own(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["m2distill"], run)
    evaluation = read_json(run / "evaluation.json")
    shared = evaluation["stages"][0]["tasks"][0]["instruction"]
    for stage in evaluation["stages"][1:]:
        stage["tasks"][1]["instruction"] = shared
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    titles = [f"{shared} ({SUITE} task {task})" for task in TASKS[:2]]
    drawn = figures.forgetting(load_runs([run]))
    panels = {axes.get_title().replace("\n", " "): axes for axes in drawn.axes if axes.get_visible()}
    assert list(panels) == [*titles, find_task(SUITE, TASKS[2]).instruction]
    points = {title: len(panels[title].containers[0][0].get_xdata()) for title in titles}
    assert points == dict(zip(titles, (3, 2), strict=True))
    write_report(tmp_path / "report.html", [run])
    rows = Reader((tmp_path / "report.html").read_text()).rows
    assert [row[1] for row in rows if row[0] in titles] == ["8 of 10 (49% to 94%)", "9 of 10 (60% to 98%)"]
    table = list(csv.DictReader((tmp_path / "report_tables" / "tasks.csv").open()))
    assert [row["instruction"] for row in table][:2] == titles


def test_the_evaluation_of_a_checkpoint_is_reported_by_the_command(runs, tmp_path, capsys):
    """A folder as evaluate_checkpoint writes it: without a run, seeds and stages."""
    run = RunFolder(runs["m2distill"])
    of_run = read_json(run.path / "evaluation.json")
    evaluation = {name: of_run[name] for name in ("episodes_per_task", "sampling", "seed", "max_steps")}
    last = of_run["stages"][-1]
    evaluation |= {"checkpoint": str(run.checkpoint(3)), **last, "ran": {}}
    folder = tmp_path / "evaluated"
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    assert main.run(["report", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(folder / "report.html")
    rows = Reader((folder / "report.html").read_text()).rows
    label = f"{run.path.name}/stages/3"
    assert [label, "-", "-", "-", "-", "10"] in rows
    assert [find_task(SUITE, TASKS[2]).instruction, "7 of 10 (40% to 89%)"] in rows
    assert (folder / "report_figures" / "forgetting.svg").is_file()


def test_a_run_without_evaluation_is_rejected(tmp_path):
    with pytest.raises(UserError, match="has no evaluation.json; run: m2distill evaluate"):
        write_report(tmp_path / "report.html", [tmp_path])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_lays_out_every_figure_table_and_video(report, tmp_path, width):
    """A copy of the page with a script that reports the boxes; the browser's own errors come on its stderr.

    The page is in a frame of this width, because a window cannot be as narrow as a phone.
    """
    copy, page_text = tmp_path / "probed.html", report.read_text().replace("</body>", PROBE)
    copy.write_text(FRAME.format(width=width, page=html.escape(page_text)))
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1300,900",
            "--enable-logging=stderr",
            "--timeout=60000",
            "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert ":CONSOLE" not in done.stderr, done.stderr
    probe = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout).group(1))
    assert len(probe["boxes"]) > 20
    for tag, box_width, height, decoded, _ in probe["boxes"]:
        assert box_width > 50 and height > 10 and decoded, (tag, box_width, height, decoded)
    counts = {tag: sum(box[0] == tag for box in probe["boxes"]) for tag in ("IMG", "TABLE", "VIDEO")}
    assert counts == {"IMG": 5, "TABLE": 8, "VIDEO": 6}
    assert probe["missing"] == [] and probe["links"] == 6  # the last row of two matrices of three stages
    assert probe["page"] <= probe["window"]  # nothing sticks out to the side


def test_figures_in_the_page_are_those_beside_it(report):
    """Same aspect ratio, in the SVG and in the PNG."""
    page = report.read_text()
    sources = [base64.b64decode(x).decode() for x in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)]
    ratios = []
    for svg in sources:
        width, height = (
            float(re.search(rf'<svg[^>]* {side}="([\d.]+)pt"', svg).group(1)) for side in ("width", "height")
        )
        ratios.append(width / height)
    paths = (report.parent / "compared_figures").glob("[!s]*.png")  # the page has the matrices as tables
    images = [cv2.imread(str(path)).shape for path in paths]
    assert sorted(ratios) == pytest.approx(sorted(w / h for h, w, _ in images), rel=0.01)


def test_ten_methods_have_ten_colours_and_a_strategy_keeps_its_own():
    names = ["own_1", "finetune", "m2distill", "own_2", "er", "own_3", "own_4", "ewc", "own_5", "packnet"]
    colours = method_colors([(f"{n}", n) for n in names])
    assert len(set(colours.values())) == 10
    assert colours["finetune"] == method_colors([("x", "m2distill"), ("y", "finetune")])["y"]
    twice = method_colors([("a", "er"), ("b", "er")])
    assert twice["a"] != twice["b"]


def test_colour_is_the_method_and_line_the_seed(runs, tmp_path):
    other = tmp_path / "seed1"
    shutil.copytree(runs["m2distill"], other)
    (other / "config.json").write_text(json.dumps({**read_json(other / "config.json"), "seed": 1}))
    loaded = load_runs([runs["m2distill"], runs["finetune"], other])
    first, control, second = run_styles(loaded)
    assert first.color == second.color != control.color
    assert first.line == control.line != second.line and first.marker != second.marker
    (other / "config.json").write_text(json.dumps({**read_json(other / "config.json"), "precision": "bfloat16"}))
    assert run_styles(load_runs([runs["m2distill"], other]))[1].color == first.color  # a seed of another machine
    drawn = figures.forgetting(loaded)
    assert "m2distill: mean of 2 seeds" in [text.get_text() for text in drawn.legends[0].get_texts()]


def named(figure, axis: str) -> bool:
    """Return whether the figure, or each of its visible axes, names this axis."""
    whole = figure.get_supxlabel() if axis == "x" else figure.get_supylabel()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    return bool(whole) or all(axes.get_xlabel() if axis == "x" else axes.get_ylabel() for axes in shown)


def test_no_text_of_a_figure_is_cut_or_covered(runs, tmp_path):
    """Runs of two methods and seeds with long names, one of them with a single loss term, and tiny losses."""
    paths = []
    for seed in (0, 1):
        for name, run in runs.items():
            path = tmp_path / f"lab_with_a_long_name_{seed}" / f"{name}_on_the_second_robot_of_the_lab"
            shutil.copytree(run, path)
            (path / "config.json").write_text(json.dumps({**read_json(path / "config.json"), "seed": seed}))
            lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
            small = {"text", "extra"}
            lines = [{key: x * (1e-5 if key in small else 1) for key, x in line.items()} for line in lines]
            (path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
            paths.append(path)
    loaded = load_runs(paths)
    assert loaded[0].label == "m2distill (lab_with_a_long_name_0/m2distill_on_the_second_robot_of_the_lab)"
    with_all = (figures.comparison, figures.forgetting, figures.drift)
    for figure in (*(draw(loaded) for draw in with_all), *map(figures.matrix, loaded), *map(figures.losses, loaded)):
        assert_legible(figure)
    titles = [axes.get_title() for axes in figures.losses(loaded[0]).axes]
    assert titles[0] == "bc, nats" and "policy, nats" in titles
    assert [len(figures.losses(run).axes) for run in loaded[:2]] == [5, 1]


def test_every_axis_has_a_name(runs):
    loaded = load_runs(list(runs.values()))
    for figure in (figures.forgetting(loaded), figures.losses(loaded[0]), figures.matrix(loaded[0])):
        assert all(named(figure, axis) for axis in "xy")
    units = {axes.get_ylabel() for axes in figures.drift(loaded).axes if axes.get_visible()}
    assert units == {"share of mean square", "KL, nats"} and named(figures.drift(loaded), "x")
    assert [axes.get_xlabel() for axes in figures.comparison(loaded).axes] == [
        "success, %",
        "success lost, %",
        "success, %",
    ]


def test_tables_for_a_paper_hold_the_numbers_of_the_page(report):
    folder = report.parent / "compared_tables"
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "metrics.tex", "tasks.csv", "tasks.tex"]
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert [row["run"] for row in rows] == ["m2distill", "finetune"]
    assert float(rows[0]["fwt"]) == pytest.approx(26 / 30) and float(rows[1]["nbt"]) == pytest.approx(0.85)
    assert float(rows[0]["fwt_low_95"]) < 26 / 30 < float(rows[0]["fwt_high_95"])
    text = (folder / "metrics.tex").read_text()
    assert r"\begin{tabular}{lrrrr}" in text and "m2distill & 0 & $86.7$ (" in text
    assert len(list(csv.DictReader((folder / "tasks.csv").open()))) == 6
