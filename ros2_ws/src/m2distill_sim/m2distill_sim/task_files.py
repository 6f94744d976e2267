"""Checks of the files that a task needs, before LIBERO and MuJoCo read them.

A damaged task file or an incomplete assets folder is reported in one line that names all missing files. A task file is
in BDDL, nested lists in parentheses: (define (problem NAME) ... (:fixtures a b - kind ...)).
"""

import functools
import itertools
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from m2distill_policy.errors import AssetError
from m2distill_sim.assets import AssetSource
from m2distill_sim.builtin import builtin_files, scenes

SECTIONS = ("problem", ":domain", ":regions", ":fixtures", ":objects", ":obj_of_interest", ":init", ":goal")
REPLACED = ("texplane", "tex-wall")  # textures whose file LIBERO's arenas replace
MAX_NAMED = 8  # missing files that a message names; the others are counted


def check_task_files(bddl_file: Path, assets: AssetSource) -> None:
    """Raise AssetError if the task file is damaged, or if asset files of the task are missing, empty or not XML."""
    missing = missing_files(assets.path, *_problem_and_kinds(bddl_file))
    if missing:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise AssetError(
            f"assets folder {assets.path} is incomplete: {', '.join(missing[:MAX_NAMED])}{more} missing or "
            f'damaged; copy LIBERO\'s assets whole, or use "builtin"'
        )


def read_bddl(file: Path) -> dict[str, list]:
    """Read a task file.

    Returns:
        Section name -> its content as nested lists, in lower case as in LIBERO.

    Raises:
        AssetError: the file is not readable or damaged; the message names the line.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise AssetError(f"task file {file} is not readable: {error}; reinstall hf-libero") from error
    stack: list[list] = [[]]
    opened: list[int] = []
    for number, line in enumerate(text.lower().splitlines(), 1):
        for token in re.findall(r"[()]|[^\s()]+", line.partition(";")[0]):
            if token == "(":
                stack.append([])
                opened.append(number)
            elif token == ")":
                if not opened:
                    raise _damaged(file, f"line {number}: ')' without '('")
                opened.pop()
                stack[-2].append(stack.pop())
            else:
                stack[-1].append(token)
    if opened:
        raise _damaged(file, f"line {opened[-1]}: '(' without ')'")
    if len(stack[0]) != 1 or stack[0][0][:1] != ["define"]:
        raise _damaged(file, "expected one (define ...)")
    sections = {part[0]: part[1:] for part in stack[0][0][1:] if isinstance(part, list) and part}
    absent = [name for name in SECTIONS if not sections.get(name)]
    if absent:
        raise _damaged(file, f"no ({') and no ('.join(absent)} ...)")
    return sections


def missing_files(folder: Path, problem: str, kinds: set[str]) -> list[str]:
    """Return the missing files of an assets folder, relative to it.

    A scene or kind that the built-in set does not know is not checked; LIBERO reports it.

    Args:
        folder: the assets folder.
        problem: LIBERO's problem, which determines the scene.
        kinds: kinds of the task's objects and fixtures.
    """
    scene = scenes.SCENES.get(problem)
    textures = [f"textures/{name}.png" for name in scene.textures] if scene else []
    models = ([f"scenes/{scene.name}.xml"] if scene else []) + [_models()[kind] for kind in kinds & _models().keys()]
    missing = [name for name in (*textures, *models) if not _is_nonempty_file(folder / name)]
    for name in models:
        if name not in missing:
            missing += _missing_references(folder, name)
    return sorted(set(missing))


@functools.cache
def _models() -> dict[str, str]:
    """Return kind of object -> path of its MJCF in an assets folder."""
    return {Path(name).stem: name for name in builtin_files() if name.endswith(".xml")}


def _problem_and_kinds(file: Path) -> tuple[str, set[str]]:
    """Return the problem of a task file, and the kinds of its objects and fixtures."""
    sections = read_bddl(file)
    kinds = set()
    for section in (":fixtures", ":objects"):
        words = sections[section]
        if any(isinstance(word, list) for word in words) or words[-2:-1] != ["-"]:
            raise _damaged(file, f"({section} ...) expected names, '-' and their kind")
        kinds |= {kind for dash, kind in itertools.pairwise(words) if dash == "-"}
    return sections["problem"][0], kinds


def _missing_references(folder: Path, model: str) -> list[str]:
    """Return the missing files that a model refers to, or the model itself with the reason if it is not XML."""
    try:
        tree = ElementTree.parse(folder / model)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # the last two: unknown encodings
        return [f"{model} ({error})"]
    files: dict = {}  # robosuite uses the first asset of each name; LIBERO's stove has two of one name
    for element in tree.iter():
        if element.get("file") and element.get("name") not in REPLACED:
            files.setdefault((element.tag, element.get("name")), element.get("file"))
    paths = [(folder / model).parent / file for file in files.values()]
    return [os.path.relpath(path, folder) for path in paths if not _is_nonempty_file(path)]


def _is_nonempty_file(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except (OSError, ValueError):  # not a valid file name
        return False


def _damaged(file: Path, reason: str) -> AssetError:
    return AssetError(f"task file {file} is damaged: {reason}; reinstall hf-libero")
