"""PolicySpec: JSON round trips, and an error for every malformed field."""

import dataclasses
import json

import pytest

from m2distill_policy.errors import SpecError, unknown_name
from m2distill_policy.spec import CameraSpec, PolicySpec, libero_spec


def test_json_round_trip_is_exact():
    spec = libero_spec(size_px=64, history=4, text_encoder="all-MiniLM-L6-v2", text_width=384)
    assert PolicySpec.from_json(spec.to_json()) == spec


def _edited(edit) -> str:
    data = json.loads(libero_spec().to_json())
    edit(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda d: d.pop("rate_hz"), r"missing keys \['rate_hz'\]"),
        (lambda d: d.update(fps=20), r"unknown keys \['fps'\]"),
        (lambda d: d.update(rate_hz="20"), "rate_hz is '20', expected a number"),
        (lambda d: d.update(rate_hz=0), "rate_hz is 0.0, allowed above 0"),
        (lambda d: d.update(history=2.5), "history is 2.5, expected int"),
        (lambda d: d.update(history=True), "history is True, expected int"),
        (lambda d: d["cameras"][0].pop("upside_down"), r"cameras\[0\] has missing keys \['upside_down'\]"),
        (lambda d: d.update(cameras=[]), "cameras has 0 entries"),
        (lambda d: d["cameras"].append(d["cameras"][0]), "not unique"),
        (lambda d: d["action"].update(linear_scale_m=-1), "linear_scale_m is -1.0, expected a positive"),
        (lambda d: d["action"].update(linear_scale_m=float("nan")), "linear_scale_m is nan"),
        (lambda d: d.update(joint_names="j1"), "joint_names is str, expected a list"),
    ],
)
def test_a_malformed_spec_is_rejected_by_name(edit, named):
    with pytest.raises(SpecError, match=named):
        PolicySpec.from_json(_edited(edit))


def test_text_that_is_not_json_is_rejected():
    with pytest.raises(SpecError, match="not JSON"):
        PolicySpec.from_json("{")


def test_a_spec_is_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        libero_spec().rate_hz = 5.0


def test_the_error_for_an_unknown_camera_lists_the_known_ones():
    with pytest.raises(SpecError, match="'top'.*agentview, wrist"):
        libero_spec().camera("top")


def test_a_camera_without_a_size_is_rejected():
    with pytest.raises(SpecError, match="0x64"):
        CameraSpec("front", 0, 64, upside_down=False)


def test_the_nearest_name_is_suggested():
    assert "did you mean 'libero_object'?" in unknown_name("suite", "libero_objects", ["libero_object", "libero_goal"])
