"""Arm files: the packaged presets, a user's own file, and every way in which a file can be wrong."""

import math
import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from m2distill_policy.errors import UserError
from m2distill_policy.safety.arm_presets import (
    MAX_FILE_BYTES,
    PRESETS_FOLDER,
    arm_names,
    limits_of,
    load_arm,
    resolve_arm,
    settings_from_json,
    settings_to_json,
)

ROOT = Path(__file__).parents[2]


def arm_file(folder: Path, content: str | bytes) -> str:
    path = folder / "arm.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_the_presets_are_the_files_of_the_package():
    real = ("fr3_impedance", "fr3_servo", "franka_impedance", "franka_servo")
    assert arm_names() == (*real, "libero_sim", "unknown", "ur_servo")
    assert load_arm("unknown") == {}
    assert load_arm("franka_servo")["workspace_max_m"] == (0.75, 0.45, 0.70)
    assert load_arm("ur_servo")["gripper_action_scale"] == -0.8 / 0.085


def test_the_limits_of_the_simulated_arm_equal_the_range_of_its_controller_exactly():
    limits = limits_of("libero_sim")
    assert (limits.max_linear_m_s, limits.max_angular_rad_s) == (3**0.5, 300**0.5)
    assert (limits.max_linear_step_m_s, limits.max_angular_step_rad_s) == (2 * 3**0.5, 2 * 300**0.5)
    assert (limits.workspace_min_m, limits.workspace_max_m) == ((-math.inf,) * 3, (math.inf,) * 3)


@pytest.mark.parametrize("arm", arm_names())
def test_every_value_of_a_preset_has_a_comment_with_its_unit_or_source(arm):
    for line in (PRESETS_FOLDER / f"{arm}.yaml").read_text().splitlines():
        if line and line != "{}" and not line.startswith("#"):
            assert "  # " in line, line


def test_an_arm_is_added_by_one_file(tmp_path):
    path = arm_file(
        tmp_path,
        "# my arm\noutput: array\nframe_id: base\nmax_linear_m_s: 1e-1  # m/s\nfade_in_s: 1\n"
        "workspace_min_m: [-.inf, -.inf, -.inf]\nworkspace_max_m: [.inf, .inf, .inf]\n"
        "joint_names: [left, right]\njoint_lower_rad: [-1, -2.5]\njoint_upper_rad: [1, 2.5]\n",
    )
    assert load_arm(path) == {
        "output": "array",
        "frame_id": "base",
        "max_linear_m_s": 0.1,
        "fade_in_s": 1.0,
        "workspace_min_m": (-math.inf,) * 3,
        "workspace_max_m": (math.inf,) * 3,
        "joint_names": ("left", "right"),
        "joint_lower_rad": (-1.0, -2.5),
        "joint_upper_rad": (1.0, 2.5),
    }
    limits = limits_of(path)
    assert (limits.max_linear_m_s, limits.fade_in_s, limits.has_workspace) == (0.1, 1.0, False)
    assert limits.max_angular_rad_s == 0.8  # a default


def test_a_file_extends_a_preset_and_replaces_some_of_its_settings(tmp_path):
    path = arm_file(tmp_path, "max_linear_m_s: 0.02\nextends: fr3_servo\ncameras: [front]\n")
    changed = {"max_linear_m_s": 0.02, "cameras": ("front",)}
    assert load_arm(path) == load_arm("fr3_servo") | changed
    assert load_arm("fr3_servo")["max_linear_m_s"] == load_arm("franka_servo")["max_linear_m_s"] == 0.1
    assert load_arm("fr3_servo")["ee_frame"] == "fr3_hand_tcp"
    assert settings_from_json(settings_to_json(load_arm(path))) == load_arm(path)
    assert load_arm(arm_file(tmp_path, "extends: unknown")) == {}


def test_a_path_is_expanded_and_made_absolute_and_a_name_stays(tmp_path, monkeypatch):
    path = arm_file(tmp_path, "{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_arm("arm.yaml") == resolve_arm("./arm.yaml") == resolve_arm("~/arm.yaml") == path
    assert resolve_arm("ur_servo") == "ur_servo"
    assert load_arm("~/arm.yaml") == load_arm("arm.yaml") == {}
    with pytest.raises(UserError, match=f"arm file {tmp_path}/other.yaml does not exist; give the path of a YAML file"):
        load_arm("other.yaml")
    with pytest.raises(UserError, match="; give an absolute path"):
        resolve_arm("~\0/arm.yaml")
    with pytest.raises(UserError, match="home directory.*; give an absolute path"):
        resolve_arm("~nobody-of-that-name/arm.yaml")


def test_an_unknown_preset_is_rejected_with_the_nearest_one():
    with pytest.raises(UserError) as error:
        resolve_arm("ur_serv")
    assert str(error.value).startswith("unknown arm 'ur_serv'; did you mean 'ur_servo'? (allowed: fr3_impedance,")
    assert str(error.value).endswith("give one of these, or the path of an arm file (.yaml)")


NUMBER = "write the number alone, without unit or quotes"
LIST = "write [1.0, 2.0] without unit or quotes"


@pytest.mark.parametrize(
    ("content", "line", "message", "next_step"),
    [
        # keys
        (
            "max_linear_mm_s: 0.1",
            1,
            "unknown key 'max_linear_mm_s'; did you mean 'max_linear_m_s' in m/s?",
            "remove it",
        ),
        ("max_linear: 0.1", 1, "unknown key 'max_linear'; did you mean 'max_linear_m_s' in m/s?", "remove it"),
        ("joint_margin_deg: 5", 1, "unknown key 'joint_margin_deg'; did you mean 'joint_margin_rad' in rad?", "it"),
        ("dry_run: true", 1, "unknown key 'dry_run' (allowed: ", "correct or remove it"),
        ("<<: {a: 1}", 1, "unknown key '<<'", "correct or remove it"),
        ("{}: 1", 1, "a key is a mapping, expected a name", "write `key: value` lines"),
        ("fade_in_s: 1\nfade_in_s: 2", 2, "fade_in_s appears twice", "remove one of the two lines"),
        # units, types and ranges of numbers
        ("max_linear_m_s: 100 mm/s", 1, "max_linear_m_s is '100 mm/s', allowed 0 to 10 in m/s", NUMBER),
        ("fade_in_s: 1\n\nmax_linear_m_s: 100", 3, "max_linear_m_s is 100.0, allowed 0 to 10 in m/s", NUMBER),
        ("max_linear_m_s: -0.1", 1, "max_linear_m_s is -0.1, allowed 0 to 10 in m/s", NUMBER),
        ("max_angular_rad_s: '0.5'", 1, "max_angular_rad_s is '0.5', allowed 0 to 100 in rad/s", NUMBER),
        ("linear_gain: true", 1, "linear_gain is True, allowed 0 to 2", NUMBER),
        ("linear_gain:", 1, "linear_gain is None, allowed 0 to 2", NUMBER),
        ("linear_gain: 0x1", 1, "linear_gain is '0x1', allowed 0 to 2", NUMBER),
        ("gripper_effort_n: .inf", 1, "gripper_effort_n is inf, allowed 0 to 1000 in N", NUMBER),
        ("watchdog_s: .nan", 1, "watchdog_s is nan, allowed 0.01 to 600 in s", NUMBER),
        ("watchdog_s: [1.0]", 1, "watchdog_s is [1.0], allowed 0.01 to 600 in s", NUMBER),
        ("watchdog_s: {s: 1.0}", 1, "watchdog_s is a mapping, allowed 0.01 to 600 in s", NUMBER),
        # texts
        ("output: servo", 1, "output is 'servo', allowed twist, pose, array", "write one of these"),
        ("output: 1", 1, "output is 1.0, allowed twist, pose, array", "write one of these"),
        ("frame_id: 5", 1, "frame_id is 5.0, expected a text", "put it in quotes"),
        ("frame_id: on", 1, "frame_id is True, expected a text", "put it in quotes"),
        # lists
        ("workspace_min_m: 0.1", 1, "workspace_min_m is 0.1, expected a list of numbers in m", LIST),
        ("workspace_min_m: [0.1, 0.2, 3 cm]", 1, "workspace_min_m is [0.1, 0.2, '3 cm'], expected a list", LIST),
        ("workspace_min_m: [.nan, 0, 0]", 1, "workspace_min_m is [nan, 0.0, 0.0], expected a list of numbers", LIST),
        ("joint_lower_rad: [-.inf]", 1, "joint_lower_rad is [-inf], expected a list of numbers in rad", LIST),
        ("joint_names: [left, 2]", 1, "joint_names is ['left', 2.0], expected a list of names", "[name_1, name_2]"),
        ("joint_names: left", 1, "joint_names is 'left', expected a list of names", "write [name_1, name_2]"),
        ("joint_lower_rad: [[1]]", 1, "joint_lower_rad is a list, expected a list of numbers in rad", LIST),
        # presets
        ("extends: fr3_serv", 1, "extends: unknown preset 'fr3_serv'; did you mean 'fr3_servo'?", "write one of these"),
        ("extends: [fr3_servo]", 1, "extends: unknown preset 'a list'", "write one of these"),
        ("extends: unknown\nextends: unknown", 2, "extends appears twice", "remove one of the two lines"),
        ("extend: fr3_servo", 1, "unknown key 'extend'; did you mean 'extends'?", "correct or remove it"),
        # YAML
        ("- 1", 1, "got a list, expected `key: value` lines", "as in docs/ros.md"),
        ("franka", 1, "got 'franka', expected `key: value` lines", "as in docs/ros.md"),
        ("fade_in_s: 1\nlinear_gain: [", 2, "not valid YAML: expected the node content", "correct this line"),
        ("fade_in_s: *a", 1, "not valid YAML: found undefined alias 'a'", "correct this line"),
        ("{}\n---\n{}", 2, "not valid YAML: but found another document", "correct this line"),
        ("frame_id: !!python/object/apply:os.getcwd []", 1, "frame_id is a list", "put it in quotes"),
        ("frame_id: !exec ls", 1, "frame_id has the YAML tag '!exec', expected a plain value", "remove the tag"),
        ("frame_id: !!binary aGk=", 1, "frame_id is 'aGk=', expected a text", "put it in quotes"),
    ],
)
def test_a_wrong_line_is_named_with_place_value_and_next_step(content, line, message, next_step, tmp_path):
    path = arm_file(tmp_path, content)
    with pytest.raises(UserError) as error:
        load_arm(path)
    assert str(error.value).startswith(f"{path}:{line}: {message}")
    assert str(error.value).endswith(next_step) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{path} is empty, expected `key: value` lines; write {{}} for an arm with default settings"),
        ("# a comment\n", "{path} is empty"),
        ("frame_id: \x07", "{path} is not valid YAML: unacceptable character"),
        ("[" * 20000, "{path} is not valid YAML: "),
        (b"frame_id: \xff", "arm file {path} is not UTF-8: byte 10 is 0xff; save it as UTF-8"),
        ("#" * MAX_FILE_BYTES + "\n{}", "arm file {path} is larger than 65536 bytes; check that it is an arm file"),
        ("joint_lower_rad: [1]", "{path}: joint_lower_rad and joint_upper_rad have 1 and 0 entries"),
        ("cameras: [a]\ncamera_topics: [a, b]", "{path}: camera_topics has 2 entries, expected 1, one for each of cam"),
        ("cameras: [a b]", "{path}: cameras has 'a b', expected letters, digits and underscores"),
        ("cameras: [a, a]", "{path}: cameras is ['a', 'a'], expected every name once"),
        ("gripper_joint_names: [g]\ngripper_joint_signs: [2]", "{path}: gripper_joint_signs has 2, allowed 1 and -1"),
        ("gripper_joint_names: [g]\ngripper_joint_open: [1]", "{path}: gripper_joint_open and gripper_joint_closed be"),
        (
            "gripper_joint_names: [g]\ngripper_joint_open: [1]\ngripper_joint_closed: [1]",
            "{path}: gripper_joint_open [1.0] and gripper_joint_closed [1.0] have an equal position",
        ),
        (
            "cameras: [a]\nframe_id: base\njoint_names: [g]\ngripper_joint_names: [g]",
            "{path}: the arm file describes no possible robot: joint names ('g', 'g') are not unique",
        ),
        (
            "workspace_min_m: [1, 1, 1]",
            "{path}: workspace_min_m is [1.0, 1.0, 1.0] and workspace_max_m [0.8, 0.8, 1.2]",
        ),
    ],
)
def test_a_wrong_file_is_one_line_with_its_path(content, message, tmp_path):
    path = arm_file(tmp_path, content)
    with pytest.raises(UserError) as error:
        load_arm(path)
    assert str(error.value).startswith(message.format(path=path)) and "\n" not in str(error.value)


def test_a_path_that_is_not_a_readable_file_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path / "", Path("/dev/zero")):
        with pytest.raises(UserError, match=f"arm file {path} is not a file; give the path of a YAML file"):
            load_arm(f"{path}/" if path == tmp_path else str(path))
    with pytest.raises(UserError, match="does not exist"):
        load_arm("/no\0where")


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.dictionaries(
            st.sampled_from(["frame_id", "fade_in_s", "workspace_max_m", "output", "x"]),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.dates(),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            ),
        ).map(lambda document: yaml.safe_dump(document).encode()),
    )
)
def test_any_content_is_read_or_rejected_with_one_line(tmp_path_factory, content):
    path = arm_file(tmp_path_factory.mktemp("arm"), content)
    try:
        load_arm(path)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("arm", arm_names())
def test_settings_survive_json_and_are_checked_when_read(arm):
    assert settings_from_json(settings_to_json(load_arm(arm))) == load_arm(arm)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the arm settings are not JSON"),
        ("[" * 20000, "the arm settings are not JSON"),
        ("[]", "the arm settings are a list, expected a JSON object"),
        ('{"linear_gain": NaN}', "linear_gain is nan, allowed 0 to 2"),
        ('{"joint_lower_rad": [1%s]}' % ("0" * 400), "joint_lower_rad is .*, expected a list of numbers in rad"),
        ('{"linear_gains": 1}', "unknown key 'linear_gains'; did you mean 'linear_gain'?"),
        ('{"workspace_min_m": [9, 9, 9]}', "the first below the second"),
    ],
)
def test_wrong_settings_in_a_label_are_rejected(text, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        settings_from_json(text)


def test_the_documented_example_is_a_valid_arm_file(tmp_path):
    page = (ROOT / "docs" / "ros.md").read_text()
    example = page.partition("### An arm of your own")[2].partition("```yaml\n")[2].partition("```")[0]
    assert {"output", "frame_id", "joint_lower_rad", "workspace_min_m"} <= load_arm(arm_file(tmp_path, example)).keys()
