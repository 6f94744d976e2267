"""Check the prose of the repository against the word list of CONTRIBUTING.md.

    python scripts/check_words.py [FILE ...]

Prose is Markdown outside code, and comments, docstrings and other strings in Python; identifiers are not checked.
A line that needs a listed word, such as a quotation, ends with the comment `words: ok`.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = {
    r"pictures?": "image",
    r"tells?|told|telling": "report, log, publish, set or send",
    r"hears?|heard|hearing": "receive",
    r"says?|said|saying": "report, state or print",
    r"(?:go|goes|going|went|gone) on": "continue or resume",
    r"pass(?:es|ed|ing) over": "ignore",
    r"anew": "again",
    r"shall": "must or will",
    r"likeness": "similarity",
    r"bites?|bitten|biting": "trip",
    r"the ones? before": "previous",
    r"(?:where|for) there (?:is|are)": "if or because",
    r"refus(?:e|es|ed|ing|als?)": "reject",
    r"wants?|wanted": "require or request",
    r"mend(?:s|ed|ing)?": "fix or repair",
    r"obey(?:s|ed|ing)?": "follow",
    r"comes? of": "result of or follow from",
    r"strangers?": "unknown sender or reader",
    r"whoever": "the component or person that",
}
PATTERN = re.compile(rf"(?<![\w`/.-])({'|'.join(WORDS)})(?![\w`/]|-\w)", re.IGNORECASE)
ALLOWED = "words: ok"
# Records and third-party texts are not prose of ours.
SKIPPED = ("LICENSE", "docs/results", "docs/benchmarks/", "scripts/check_words.py")


def main(arguments: list[str]) -> int:
    """Print every listed word with its place; return 1 if there is one."""
    paths = [Path(argument).resolve() for argument in arguments] or tracked_files()
    found = [message for path in paths for message in check_file(path)]
    print("\n".join(found) if found else f"{len(paths)} files: no listed word")
    return int(bool(found))


def tracked_files() -> list[Path]:
    """Return the Markdown and Python files of the repository, without the skipped ones."""
    listed = subprocess.run(["git", "ls-files", "*.md", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.splitlines() if not name.startswith(SKIPPED)]


def check_file(path: Path) -> Iterator[str]:
    """Yield `path:line: word -> replacement` for each listed word."""
    text = path.read_text()
    prose = python_prose(text) if path.suffix == ".py" else markdown_prose(text)
    lines = text.splitlines()
    for number, line in prose:
        if ALLOWED in lines[number - 1]:
            continue
        for match in PATTERN.finditer(line):
            yield f"{path}:{number}: {match[1]!r} -> {replacement(match[1])}"


def replacement(word: str) -> str:
    """Return what to write in place of a listed word."""
    return next(text for pattern, text in WORDS.items() if re.fullmatch(pattern, word, re.IGNORECASE))


def markdown_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) outside fenced and indented code, inline code removed."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith("    "):
            yield number, re.sub(r"`[^`]*`", "", line)


def python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of comments and string literals with more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
        elif token.type == tokenize.STRING and (" " in literal(token.string)):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def literal(source: str) -> str:
    """Return the value of a string literal, or its source for an f-string or bytes."""
    try:
        return str(ast.literal_eval(source))
    except (ValueError, SyntaxError):
        return source


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
