"""The pages of the documentation, and the command lines on them.

A line of a block that is indented by four spaces is a command if it starts like one. Fenced blocks contain none. Code
in a sentence is a command if it starts with one of PROGRAMS.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# these pages describe commands and paths without quoting command lines
NO_COMMANDS = {
    ROOT / "docs/architecture.md",
    ROOT / "docs/dev/commands.md",
    ROOT / "docs/dev/faults.md",
    ROOT / "docs/dev/data_faults.md",
}
PROGRAMS = ("m2distill", "make", "ros2", "pip", "docker", "colcon", "torchrun", "python -m", "scripts/")
COMMAND = re.compile(r"(\.venv/bin/|scripts/)?[a-z][\w.+-]*$")
ASSIGNMENT = re.compile(r"\w+=\S*$")
SHELL = {"for", "export", "eval"}  # the shell's own


@dataclass(frozen=True)
class Command:
    place: str  # page:line
    words: tuple[str, ...]  # without leading variables and output redirection
    whole: bool  # in a block of its own, to be typed as written

    def __str__(self) -> str:
        return f"{self.place}: {shlex.join(self.words)}"


def commands() -> list[Command]:
    return [command for page in PAGES if page not in NO_COMMANDS for command in commands_of(page)]


def commands_of(page: Path) -> list[Command]:
    return commands_in(page.read_text(), str(page.relative_to(ROOT)))


def commands_in(text: str, name: str) -> list[Command]:
    """Return the commands of a page's text in order of lines; `name` is used in `place`."""
    found, fenced, begun = [], False, ""
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{name}:{number}"
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            continue
        elif line.startswith("    ") or begun:
            begun += line.strip()
            if begun.endswith("\\"):
                begun = begun[:-1]
                continue
            found += [Command(place, words, True) for words in _split(begun)]
            begun = ""
        else:
            found += [
                Command(place, words, False)
                for code in re.findall(r"`([^`]+)`", line)
                if code.startswith(PROGRAMS) and " " in code
                for words in _split(code)
            ]
    return found


def _split(line: str) -> list[tuple[str, ...]]:
    """Return the simple commands of a line, which `&&`, `|` and `;` separate."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    lexer.whitespace_split = True
    simple: list[list[str]] = [[]]
    for token in lexer:
        if set(token) <= set(";|&"):
            simple.append([])
        elif simple[-1] or not (ASSIGNMENT.match(token) or token in ("do", "done")):
            simple[-1].append(token)
    cut = [words[: words.index(">")] if ">" in words else words for words in simple]
    return [tuple(words) for words in cut if words and COMMAND.match(words[0]) and words[0] not in SHELL]
