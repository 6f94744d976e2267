"""Run the commands of the researcher's tutorial as written, with small numbers in place of its own."""

from pages import ROOT, commands_of

from m2distill_training.cli import main

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


def test_the_researchers_tutorial_leads_to_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = [
        command.words
        for command in commands_of(ROOT / "docs/tutorials/researcher.md")
        if command.whole and command.words[0] == "m2distill"
    ]
    assert [words[1] for words in lines] == ["collect", "train", "train", "evaluate", "evaluate", "report"]
    for words in lines:
        if "runs/er" in words and words[1] != "report":  # the baseline: the same commands again
            continue
        assert main.run(quick(tuple(word for word in words if word != "runs/er"))) == 0, words
    assert (tmp_path / "runs/compared.html").read_text().count("data:video/mp4;base64,") == 1
