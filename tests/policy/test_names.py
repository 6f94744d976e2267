"""Names of cameras and suites stand in one table each: other modules take them from there."""

import re
from pathlib import Path

import pytest

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.suites import BUILTIN_SUITES, EXPERT_SUITES, LIBERO_SUITES, SUITES, listed

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("training", "ros2_ws/src", "launch") for path in (ROOT / folder).rglob("*.py")]
CAMERA_WORDS = [word for camera in CAMERAS for word in (camera.hdf5_key, camera.sim_camera, camera.lerobot_key)]
ALLOWED = {
    "cameras.py",
    "suites.py",
    "builtin/scenes.py",  # declares the cameras of the simulator
    "experts/__init__.py",  # the expert of one suite differs
}


@pytest.mark.parametrize("word", [*CAMERA_WORDS, *LIBERO_SUITES])
def test_a_name_is_written_in_its_table_alone(word):
    quoted = re.compile(rf"""["']{re.escape(word)}["']""")
    found = [path for path in SOURCES if "test" not in path.parts and quoted.search(path.read_text())]
    assert [str(path) for path in found if not path.as_posix().endswith(tuple(ALLOWED))] == []


def test_the_images_of_the_suites_exist():
    for suite in SUITES:
        if suite.name in BUILTIN_SUITES:
            assert all((ROOT / suite.image(assets)).is_file() for assets in ("builtin", "libero"))
    assert set(EXPERT_SUITES) <= set(BUILTIN_SUITES) <= set(LIBERO_SUITES)
    assert listed(("a",)) == "a" and listed(("a", "b", "c")) == "a, b or c"
