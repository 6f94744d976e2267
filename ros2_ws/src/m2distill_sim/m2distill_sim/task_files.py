"""What a task needs from disk, looked at before LIBERO and MuJoCo do, so that a damaged task file or a half-copied
assets folder is refused in one line that names everything.

A task file is in BDDL, nested lists in parentheses: (define (problem NAME) ... (:fixtures a b - kind ...)).
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
REPLACED = ("texplane", "tex-wall")  # textures for which LIBERO's arenas name another file
NAMED = 8  # missing files named in a message; more are counted


def check_task_files(bddl_file: Path, assets: AssetSource) -> None:
    """Raises AssetError when the task file is damaged or files that the task draws are missing, empty or no XML."""
    missing = missing_files(assets.path, *_room_and_kinds(bddl_file))
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise AssetError(
            f"assets folder {assets.path} is incomplete: {', '.join(missing[:NAMED])}{more} missing or "
            f'damaged; copy LIBERO\'s assets whole, or use "builtin"'
        )


def read_bddl(file: Path) -> dict[str, list]:
    """Section name -> its content as nested lists, in lower case like LIBERO. Raises AssetError with the line."""
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
                    raise _damaged(file, f"line {number}: ')' closes nothing")
                opened.pop()
                stack[-2].append(stack.pop())
            else:
                stack[-1].append(token)
    if opened:
        raise _damaged(file, f"line {opened[-1]}: '(' is never closed")
    if len(stack[0]) != 1 or stack[0][0][:1] != ["define"]:
        raise _damaged(file, "expected one (define ...)")
    sections = {part[0]: part[1:] for part in stack[0][0][1:] if isinstance(part, list) and part}
    absent = [name for name in SECTIONS if not sections.get(name)]
    if absent:
        raise _damaged(file, f"no ({') and no ('.join(absent)} ...)")
    return sections


def missing_files(folder: Path, room: str, kinds: set[str]) -> list[str]:
    """Files of an assets folder, relative to it, that a task in `room` with objects of `kinds` draws and that are not
    there. A room or kind that the built-in set does not know is left to LIBERO."""
    scene = scenes.SCENES.get(room)
    textures = [f"textures/{name}.png" for name in scene.textures] if scene else []
    models = ([f"scenes/{scene.name}.xml"] if scene else []) + [_models()[kind] for kind in kinds & _models().keys()]
    missing = [name for name in (*textures, *models) if not _has(folder / name)]
    for name in models:
        if name not in missing:
            missing += _missing_references(folder, name)
    return sorted(set(missing))


@functools.cache
def _models() -> dict[str, str]:
    """Kind of object -> its MJCF, in the layout of an assets folder."""
    return {Path(name).stem: name for name in builtin_files() if name.endswith(".xml")}


def _room_and_kinds(file: Path) -> tuple[str, set[str]]:
    sections = read_bddl(file)
    kinds = set()
    for section in (":fixtures", ":objects"):
        words = sections[section]
        if any(isinstance(word, list) for word in words) or words[-2:-1] != ["-"]:
            raise _damaged(file, f"({section} ...) expected names, '-' and their kind")
        kinds |= {kind for dash, kind in itertools.pairwise(words) if dash == "-"}
    return sections["problem"][0], kinds


def _missing_references(folder: Path, model: str) -> list[str]:
    try:
        tree = ElementTree.parse(folder / model)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # the last two: unknown encodings
        return [f"{model} ({error})"]
    files: dict = {}  # robosuite takes the first asset of a name, and LIBERO's stove has two of one
    for element in tree.iter():
        if element.get("file") and element.get("name") not in REPLACED:
            files.setdefault((element.tag, element.get("name")), element.get("file"))
    paths = [(folder / model).parent / file for file in files.values()]
    return [os.path.relpath(path, folder) for path in paths if not _has(path)]


def _has(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except (OSError, ValueError):  # a name that no file can have
        return False


def _damaged(file: Path, reason: str) -> AssetError:
    return AssetError(f"task file {file} is damaged: {reason}; reinstall hf-libero")
