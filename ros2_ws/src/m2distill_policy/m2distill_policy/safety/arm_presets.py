"""Arm files: one YAML file per robot with its joints, cameras, limits, outputs and units.

An arm file maps names of `SafetyLimits`, `OutputParameters` and `RobotParameters` to values. Those of the first two
replace defaults of the policy node; parameters that the user sets take precedence. The packaged presets in config/arms/
are such files, and `arm` accepts the name of a preset or the path of a file. A file may begin with the settings of a
preset (`extends`). Of the presets, only `libero_sim` has been run: those of real arms are untried on hardware.

A file is data alone: YAML nodes are read without constructing objects, so a tag cannot run code.
"""

import json
import math
import os
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import yaml

from m2distill_policy.errors import UserError, nearest_name, unknown_name
from m2distill_policy.robot import RobotParameters, robot_from_settings
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.safety.output_parameters import OutputParameters

PRESETS_FOLDER = Path(__file__).parents[1] / "config" / "arms"
MAX_FILE_BYTES = 65536  # the packaged files have less than 3 kB
EXTENDS = "extends"  # key of a file: the preset whose settings the file adds to and replaces
NOT_IN_A_FILE = ("dry_run",)  # a choice of each run, not a property of an arm
SETTINGS: dict[str, Field] = {
    field.name: field
    for group in (OutputParameters, SafetyLimits, RobotParameters)
    for field in fields(group)
    if field.name not in NOT_IN_A_FILE
}
MAY_BE_INFINITE = ("workspace_min_m", "workspace_max_m")  # infinite ends disable the workspace
UNITS = {
    "_rad_s": "rad/s",
    "_m_s": "m/s",
    "_rad": "rad",
    "_m": "m",
    "_s": "s",
    "_n": "N",
    "_hz": "Hz",
}  # by end of the key
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_NOT_FINITE = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_YAML_TAG = "tag:yaml.org,2002:"


def arm_names() -> tuple[str, ...]:
    """Return the names of the packaged presets, sorted."""
    return tuple(sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml")))


def resolve_arm(arm: str) -> str:
    """Return the name of a preset as it is, or the absolute path of an arm file, which is not read.

    Nodes may run in another working directory than the user, so launch code resolves paths first.

    Args:
        arm: the name of a preset, or the path of an arm file. A text with a slash, a leading tilde or the suffix
            .yaml or .yml is a path.

    Raises:
        UserError: the preset is unknown, or there is no home directory for a tilde.
    """
    if os.sep in arm or arm.startswith("~") or arm.endswith((".yaml", ".yml")):
        try:
            return os.path.abspath(Path(arm).expanduser())
        except (RuntimeError, ValueError) as error:  # no home directory; a NUL character
            raise UserError(f"arm file {arm!r}: {error}; give an absolute path") from None
    if arm not in (names := arm_names()):
        raise UserError(f"{unknown_name('arm', arm, names)}; give one of these, or the path of an arm file (.yaml)")
    return arm


def load_arm(arm: str) -> dict[str, Any]:
    """Return the settings of an arm: parameter name -> float, string, or tuple of floats or strings.

    Args:
        arm: a preset or a path, as for `resolve_arm`.

    Raises:
        UserError: as `resolve_arm`, or the file is missing, unreadable or wrong. The message names file, line, key,
            value, what is allowed and what to do.
    """
    resolved = resolve_arm(arm)
    return _read_file(Path(resolved) if os.sep in resolved else PRESETS_FOLDER / f"{resolved}.yaml")


def limits_of(arm: str) -> SafetyLimits:
    """Return the limits of an arm, given as for `load_arm`. Raises UserError."""
    return limits_from_settings(load_arm(arm))


def limits_from_settings(settings: Mapping[str, Any]) -> SafetyLimits:
    """Return the limits among the settings of an arm; defaults for the others. Raises UserError."""
    names = {field.name for field in fields(SafetyLimits)}
    return SafetyLimits(**{name: value for name, value in settings.items() if name in names})


def output_from_settings(settings: Mapping[str, Any]) -> OutputParameters:
    """Return the outputs among the settings of an arm; defaults for the others."""
    names = {field.name for field in fields(OutputParameters)}
    return OutputParameters(**{name: value for name, value in settings.items() if name in names})


def settings_to_json(settings: Mapping[str, Any]) -> str:
    """Return the settings of an arm as JSON, for labels of recorded episodes."""
    return json.dumps(settings)


def settings_from_json(text: str) -> dict[str, Any]:
    """Return the settings that `settings_to_json` wrote, checked like a file. Raises UserError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the arm settings are not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"the arm settings are a {type(document).__name__}, expected a JSON object")
    settings = {name: _checked(name, value) for name, value in document.items()}
    limits_from_settings(settings)
    robot_from_settings(settings)
    return settings


def _read_file(path: Path) -> dict[str, Any]:
    root = _parse(path, _read_text(path))
    if root is None:
        raise UserError(f"{path} is empty, expected `key: value` lines; write {{}} for an arm with default settings")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}:{_line(root)}: got {_describe(root)}, expected `key: value` lines, as in docs/ros.md")
    settings: dict[str, Any] = {}
    preset: dict[str, Any] | None = None
    for key_node, value_node in root.value:
        where = f"{path}:{_line(key_node)}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{where}: a key is {_describe(key_node)}, expected a name; write `key: value` lines")
        key = key_node.value
        if key in settings or (key == EXTENDS and preset is not None):
            raise UserError(f"{where}: {key} appears twice; remove one of the two lines")
        try:
            if key == EXTENDS:
                preset = _load_preset(value_node)
                continue
            _field(key)
            settings[key] = _checked(key, _python_value(key, value_node))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
    settings = (preset or {}) | settings
    try:
        limits_from_settings(settings)
        robot_from_settings(settings)
    except UserError as error:  # between keys, as the two corners of the workspace
        raise UserError(f"{path}: {error}") from None
    return settings


def _load_preset(node: yaml.Node) -> dict[str, Any]:
    """Return the settings of the preset that the key `extends` names."""
    name = node.value if isinstance(node, yaml.ScalarNode) else _describe(node)
    if name not in (names := arm_names()):
        raise UserError(f"extends: {unknown_name('preset', name, names)}; write one of these")
    return load_arm(name)


def _read_text(path: Path) -> str:
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise UserError(
            f"arm file {path} {problem}; give the path of a YAML file, or a preset ({', '.join(arm_names())})"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(f"arm file {path} cannot be read: {error.strerror}; check its permissions") from None
    if len(content) > MAX_FILE_BYTES:
        raise UserError(f"arm file {path} is larger than {MAX_FILE_BYTES} bytes; check that it is an arm file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"arm file {path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}; save it as UTF-8"
        ) from None


def _parse(path: Path, text: str) -> yaml.Node | None:
    """Return the root of the YAML tree; None for a document without content."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem or error.context}; correct this line") from None
    except (yaml.YAMLError, RecursionError) as error:  # control characters; brackets nested without end
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not valid YAML: {reason}; write `key: value` lines") from None


def _python_value(key: str, node: yaml.Node) -> Any:
    """Return a node as float, string, bool, None or a list of these; no other YAML type is constructed."""
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML_TAG}seq":
        if all(isinstance(item, yaml.ScalarNode) for item in node.value):
            return [_python_value(key, item) for item in node.value]
    elif isinstance(node, yaml.ScalarNode):
        text = node.value
        if node.style is None and _NUMBER.fullmatch(text):
            return float(text)
        if node.style is None and text.lower() in _NOT_FINITE:
            return _NOT_FINITE[text.lower()]
        if node.tag == f"{_YAML_TAG}null":
            return None
        if node.tag == f"{_YAML_TAG}bool":
            return text.lower() in ("true", "yes", "on")
        if node.tag in (f"{_YAML_TAG}{kind}" for kind in ("str", "int", "float", "timestamp")):
            return text
    if not node.tag.startswith(_YAML_TAG):
        raise UserError(f"{key} has the YAML tag {node.tag!r:.80}, expected a plain value; remove the tag")
    raise UserError(f"{key} is {_describe(node)}, {_expected(key)}")


def _field(key: str) -> Field:
    if key in SETTINGS:
        return SETTINGS[key]
    allowed = sorted([*SETTINGS, EXTENDS])
    near = nearest_name(key, allowed)
    unit = f" in {_unit(near)}" if _unit(near) else ""
    hint = f"; did you mean {near!r}{unit}?" if near else ""
    raise UserError(f"unknown key {key!r:.80}{hint} (allowed: {', '.join(allowed)}); correct or remove it")


def _checked(key: str, value: Any) -> Any:
    """Return the value of a key in the type of its field. Raises UserError for a wrong key, type or value."""
    field = _field(key)
    if isinstance(field.default, str):
        choices = field.metadata["choices"]
        if not isinstance(value, str) or (choices and value not in choices):
            raise UserError(f"{key} is {value!r:.80}, {_expected(key)}")
        return value
    low, high = field.metadata["bounds"]
    if typing.get_args(field.type)[:1] == (str,):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{key} is {value!r:.80}, {_expected(key)}")
        return tuple(value)
    if isinstance(field.default, tuple):
        if not isinstance(value, list | tuple) or not all(map(_is_number, value)):
            raise UserError(f"{key} is {value!r:.80}, {_expected(key)}")
        numbers = tuple(map(float, value))
        if any(math.isnan(x) or (math.isinf(x) and key not in MAY_BE_INFINITE) for x in numbers):
            raise UserError(f"{key} is {list(numbers)!r:.80}, {_expected(key)}")
        return numbers
    if not _is_number(value) or not low <= value <= high:
        raise UserError(f"{key} is {value!r:.80}, {_expected(key)}")
    return float(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, float)


def _expected(key: str) -> str:
    """Return what a key may have, and what to write."""
    field = SETTINGS[key]
    unit = f" in {_unit(key)}" if _unit(key) else ""
    if field.metadata["choices"]:
        return f"allowed {', '.join(field.metadata['choices'])}; write one of these"
    if isinstance(field.default, str):
        return "expected a text; put it in quotes"
    if typing.get_args(field.type)[:1] == (str,):
        return "expected a list of names; write [name_1, name_2]"
    if isinstance(field.default, tuple):
        end = "or -.inf and .inf for no workspace" if key in MAY_BE_INFINITE else "each of them finite"
        return f"expected a list of numbers{unit}, {end}; write [1.0, 2.0] without unit or quotes"
    low, high = field.metadata["bounds"]
    return f"allowed {low:g} to {high:g}{unit}; write the number alone, without unit or quotes"


def _unit(key: str) -> str:
    return next((unit for end, unit in UNITS.items() if key.endswith(end)), "")


def _describe(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)[:80]
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
