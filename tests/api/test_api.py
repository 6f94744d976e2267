"""The public package m2distill: light, without side effects, typed, and documented by examples that run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import m2distill

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "api.md"
NOTEBOOK = ROOT / "notebooks" / "first_policy.ipynb"
HEAVY = ("torch", "numpy", "h5py", "rclpy", "robosuite", "mujoco", "libero", "matplotlib", "m2distill_policy")


def run_python(code: str, folder: Path, timeout_s: int = 500) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, in `folder`, with a renderer that needs no display."""
    environment = {"MUJOCO_GL": "egl", **os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


def test_importing_it_is_quick_and_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, time; begun = time.process_time(); import m2distill; spent = time.process_time() - begun\n"
        f"print(spent, [name for name in {HEAVY} if name in sys.modules])"
    )
    done = run_python(code, tmp_path)
    seconds, heavy = done.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]" and float(seconds) < 0.1, done


@pytest.mark.slow
def test_using_every_name_has_no_side_effect(tmp_path):
    code = (
        "import logging, warnings; warnings.simplefilter('ignore')\n"
        "import m2distill\n"
        "for name in m2distill.__all__: getattr(m2distill, name)\n"
        "assert not logging.getLogger().handlers, logging.getLogger().handlers\n"
        "assert logging.getLogger().level == logging.WARNING"
    )
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_every_name_is_there_once_for_programs_and_once_for_editors():
    source = (ROOT / "training" / "m2distill" / "__init__.py").read_text()
    typed = source.partition("if TYPE_CHECKING:")[2].partition("__all__")[0]
    imported = re.findall(r"\bas (\w+)$|(?:import |, )(\w+)(?=,|$)", typed, re.M)
    names = {alias or name for alias, name in imported} - {"write_report"}
    assert names | {"__version__"} == set(m2distill.__all__) == {*m2distill._PLACES, "__version__"}
    assert sorted(m2distill.__all__) == list(m2distill.__all__)
    assert set(m2distill.__all__) <= set(dir(m2distill))
    for name in m2distill.__all__:
        assert getattr(m2distill, name) is not None
    assert (ROOT / "training" / "m2distill" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = m2distill.trian


@pytest.mark.slow
def test_mypy_knows_the_types(tmp_path):
    (tmp_path / "user.py").write_text(
        "from pathlib import Path\n"
        "from m2distill import TrainConfig, load_demos, presets, train\n"
        "config: TrainConfig = presets.debug()\n"
        "reveal_type(train)\n"
        "reveal_type(load_demos('a.hdf5'))\n"
        "train(config, [Path('a')], 3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "user.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert "list[m2distill_training.data.libero.reader.Demo]" in done.stdout, done.stdout
    assert "m2distill_training.config.TrainConfig" in done.stdout
    assert 'incompatible type "int"; expected "Path"' in done.stdout


@pytest.mark.slow
@pytest.mark.sim
def test_the_page_has_an_example_of_every_name_and_the_examples_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    code = "\n".join(blocks)
    assert [name for name in m2distill.__all__ if not re.search(rf"\b{name}\b", code)] == []
    (tmp_path / "examples.py").write_text(f"CODE = {code!r}\nif __name__ == '__main__':\n    exec(CODE, globals())\n")
    done = run_python("import runpy; runpy.run_path('examples.py', run_name='__main__')", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "['agentview', 'wrist', 'front']" in done.stdout
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.sim
def test_the_notebook_runs_in_under_a_minute_of_cpu(tmp_path):
    """Its cells in order, in a fresh interpreter, as a kernel would run them."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"markdown", "code"})
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    code = (
        f"import resource\nfor cell in {cells!r}: exec(compile(cell, '<cell>', 'exec'), globals())\n"
        "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print('cpu_s', sum(u.ru_utime + u.ru_stime for u in used))"
    )
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 60
    assert (tmp_path / "first_policy" / "report.html").is_file()
