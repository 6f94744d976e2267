"""Run the commands of the researcher's tutorial as written, with small numbers in place of its own."""

import json
import re
import sys

import pytest
from pages import ROOT, commands_in

from m2distill_training.cli import main

PAGE = (ROOT / "docs/tutorials/researcher.md").read_text()
OWN_STRATEGY = PAGE.index("## 6. Add your own strategy")
QUICK = {"--preset": ["debug"], "--demos": ["1"], "--episodes": ["1"], "--tasks": ["0"]}
MORE = {"collect": ["--workers", "1"], "evaluate": ["--max-steps", "3", "--workers", "1"]}


def quick(words: tuple[str, ...]) -> list[str]:
    """Return the command line with the values of QUICK in place of its own."""
    out, skip = [], False
    for word in words[1:]:
        skip = skip and not word.startswith("--")
        if not skip:
            out += [word, *QUICK.get(word, [])]
            skip = word in QUICK
    return [*out, *MORE.get(words[1], [])]


def test_values_are_replaced_up_to_the_next_option():
    assert quick(("m2distill", "collect", "--tasks", "0", "1", "2", "--out", "a", "--episodes", "40")) == [
        "collect",
        "--tasks",
        "0",
        "--out",
        "a",
        "--episodes",
        "1",
        "--workers",
        "1",
    ]


def lines_of(text: str) -> list[tuple[str, ...]]:
    return [command.words for command in commands_in(text, "page") if command.whole and command.words[0] == "m2distill"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which the commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_the_researchers_tutorial_leads_to_a_report(folder):
    lines = lines_of(PAGE[:OWN_STRATEGY])
    assert [words[1] for words in lines] == ["collect", "train", "train", "evaluate", "evaluate", "report"]
    for words in lines:
        if "runs/er" in words and words[1] != "report":  # the baseline: the same commands again
            continue
        assert main.run(quick(tuple(word for word in words if word != "runs/er"))) == 0, words
    assert (folder / "runs/compared.html").read_text().count("data:video/mp4;base64,") == 1


def test_the_strategy_of_the_tutorial_trains_as_written(folder):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE[OWN_STRATEGY:], re.M | re.S)
    (folder / "my_strategy.py").write_text(source)
    lines = lines_of(PAGE[OWN_STRATEGY:])
    assert [words[1] for words in lines] == ["collect", "train"]
    for words in lines:
        assert main.run([*words[1:], *MORE.get(words[1], [])]) == 0, words
    assert json.loads((folder / "runs/anchor/config.json").read_text())["strategy_config"] == {"weight": 0.2}
    last = (folder / "runs/anchor/metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["distance"] > 0
