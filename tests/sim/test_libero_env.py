import contextlib
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.renderer import Renderer
from m2distill_sim.suites import initial_states

SOUP = initial_states("libero_object", 0)


def test_an_initial_state_is_set_exactly(soup_env):
    soup_env.reset(SOUP[3], settle_steps=0)
    np.testing.assert_array_equal(soup_env.state(), SOUP[3])


def test_objects_come_to_rest_on_the_floor(soup_env):
    soup_env.reset(SOUP[0], settle_steps=30)
    before = {name: soup_env.object_pose(name)[0] for name in soup_env.object_names}
    assert before["alphabet_soup_1"][2] == pytest.approx(0.0385, abs=0.002)  # LIBERO's can: 0.0384
    assert before["cream_cheese_1"][2] == pytest.approx(0.0089, abs=0.001)
    for _ in range(10):
        soup_env.step(np.zeros(7), render=False)
    for name, position in before.items():
        np.testing.assert_allclose(soup_env.object_pose(name)[0], position, atol=1e-3, err_msg=name)


def test_success_is_liberos_predicate(soup_env):
    """The can in the middle of the basket is a success; beside the basket it is not."""
    soup_env.reset(SOUP[0])
    assert not soup_env.success()
    basket = soup_env.object_pose("basket_1")[0]
    joint = soup_env.model.joint("alphabet_soup_1_joint0").qposadr[0]
    for offset_m, expected in ((0.0, True), (0.2, False)):
        state = soup_env.state()
        state[1 + joint : 4 + joint] = basket + np.array([offset_m, 0.0, 0.08])
        soup_env.reset(state)
        assert soup_env.success() is expected


def test_physics_equals_robosuites(soup_env):
    """LIBERO's own step, with all its forward passes, results in the same state."""
    actions = np.cumsum(np.random.default_rng(0).normal(0, 0.1, (30, 7)), axis=0).clip(-1, 1)
    soup_env.reset(SOUP[0])
    for action in actions:
        soup_env.step(action, render=False)
    ours = soup_env.state()
    soup_env.reset(SOUP[0], settle_steps=0)
    soup_env._robot.controller.update(force=True)
    for action in [np.zeros(7)] * 5 + list(actions):
        soup_env._env.step(action)
    np.testing.assert_allclose(ours, soup_env.state(), atol=2e-4)


def test_the_action_moves_the_hand_along_world_axes(soup_env):
    for axis in range(3):
        start = soup_env.reset(SOUP[0]).ee_pos
        action = np.zeros(7)
        action[axis] = 0.5
        for _ in range(5):
            end = soup_env.step(action, render=False).ee_pos
        moved = end - start
        assert moved[axis] > 0.015
        assert np.abs(np.delete(moved, axis)).max() < 0.008


def test_the_gripper_opens_at_minus_one_and_closes_at_plus_one(soup_env):
    soup_env.reset(SOUP[0])
    for grip, width_m in ((-1.0, 0.078), (1.0, 0.002)):
        for _ in range(20):
            fingers = soup_env.step([0, 0, 0, 0, 0, 0, grip], render=False).gripper_positions
        assert fingers[0] - fingers[1] == pytest.approx(width_m, abs=0.003)
        assert fingers[0] >= 0 >= fingers[1]  # robosuite's signs


def test_a_reset_restores_the_gripper(soup_env):
    first = soup_env.reset(SOUP[0]).gripper_positions
    for _ in range(10):
        soup_env.step([0, 0, 0, 0, 0, 0, 1.0], render=False)
    np.testing.assert_allclose(soup_env.reset(SOUP[0]).gripper_positions, first, atol=1e-12)


def test_images_are_upright(soup_env):
    """The agentview camera faces the robot across the floor: the white arm is at the top, only floor at the bottom."""
    images = soup_env.reset(SOUP[0]).images
    assert {name: image.shape for name, image in images.items()} == {"agentview": (64, 64, 3), "wrist": (64, 64, 3)}
    agentview = images["agentview"].astype(int)
    assert (agentview[:16].min(axis=2) > 200).sum() > 30
    assert np.ptp(agentview[56:], axis=(0, 1)).max() < 25
    basket = (np.abs(agentview - agentview[60, 32]).max(axis=2) > 30) & (agentview[..., 0] > agentview[..., 2] + 40)
    assert np.argwhere(basket)[:, 1].mean() > 40  # at y = +0.25, right of the middle
    assert (images["wrist"][-8:].max(axis=2) < 60).mean() > 0.9  # the hand is at the bottom of the image


def test_what_is_left_out_of_a_drawing_changes_no_pixel(soup_env, monkeypatch):
    """LIBERO's hidden sites, and geoms beside and behind the camera; a site that is not hidden is drawn."""
    model, names = soup_env.model, ("agentview", "frontview", "robot0_eye_in_hand")

    def draw():
        height_width = {"agentview": (64, 64), "robot0_eye_in_hand": (64, 48), "frontview": (40, 64)}
        return [soup_env._renderer.render(model, soup_env.data, name, *height_width[name]) for name in names]

    for state, action in ((0, (0.5, 0.5, -1, 0.3, 0, 0.5, 1)), (1, (-0.5, -1, 0, 0, 0.5, -1, -1))):
        soup_env.reset(SOUP[state])
        for _ in range(10):
            soup_env.step(np.array(action), render=False)
        groups, images, drawn = model.geom_group.copy(), draw(), soup_env._renderer._scene.ngeom
        np.testing.assert_array_equal(model.geom_group, groups)
        with monkeypatch.context() as patch:
            patch.setattr(Renderer, "_without_invisible", lambda *_: contextlib.nullcontext())
            everything = draw()
        assert drawn < soup_env._renderer._scene.ngeom - 3
        assert all(np.array_equal(a, b) for a, b in zip(images, everything, strict=True))
    site = model.site("gripper0_grip_site_cylinder").id
    model.site_rgba[site, 3] *= -1
    assert not np.array_equal(draw()[0], images[0])
    model.site_rgba[site, 3] *= -1


def test_objects_differ_in_colour_from_the_floor_and_from_each_other(soup_env):
    """At 64 px the six groceries of the first task have distinct colours."""
    image = soup_env.reset(SOUP[0]).images["agentview"].reshape(-1, 3).astype(int)
    for colour in ((190, 20, 15), (20, 50, 190), (60, 200, 230), (230, 200, 40), (25, 130, 30), (230, 230, 230)):
        assert np.abs(image - colour).max(axis=1).min() < 60, colour


def test_a_step_without_rendering_has_no_images(soup_env):
    soup_env.reset(SOUP[0])
    assert soup_env.step(np.zeros(7), render=False).images == {}


def test_a_drawn_placement_depends_on_the_seed_alone(soup_env):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first, other = (soup_env.reset(None, seed=seed) and soup_env.state() for seed in (5, 6))
    soup_env.step(np.ones(7))
    again = soup_env.reset(None, seed=5) and soup_env.state()
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # the caller's generator is not changed


@pytest.mark.parametrize(
    "place", ["in_the_top_drawer_of_the_wooden_cabinet", "on_the_stove", "on_the_wooden_cabinet", "next_to_the_plate"]
)
def test_a_drawn_placement_in_or_on_furniture_is_like_liberos(builtin, place):
    """Also after episodes with the furniture elsewhere, to which LIBERO's reset adds the new position."""
    name = f"pick_up_the_black_bowl_{place}_and_place_it_on_the_plate"
    stored = initial_states("libero_spatial", name)
    with LiberoEnv("libero_spatial", name, builtin) as env:
        bodies = [env.object_body(name) for name in env.object_names]

        def positions(state, seed):
            env.reset(state, seed)
            return env.data.xpos[bodies].copy()

        liberos = np.array([positions(state, None) for state in stored[:20]])
        drawn = np.array([positions(None, seed) for seed in range(8)])
        assert (drawn > liberos.min(axis=0) - 0.04).all() and (drawn < liberos.max(axis=0) + 0.04).all()
        np.testing.assert_array_equal(positions(None, 3), drawn[3])


@pytest.mark.parametrize(
    "action, message",
    [
        (np.zeros(6), "shape (6,), expected (7,)"),
        (np.zeros((1, 7)), "shape (1, 7), expected (7,)"),
        ([0, 0, np.nan, 0, 0, 0, 0], "not finite"),
        ([0, 0, np.inf, 0, 0, 0, 0], "not finite"),
    ],
)
def test_invalid_actions_are_rejected_and_change_nothing(soup_env, action, message):
    soup_env.reset(SOUP[0])
    before = soup_env.state()
    with pytest.raises(UserError) as error:
        soup_env.step(action)
    assert message in str(error.value)
    np.testing.assert_array_equal(soup_env.state(), before)


def test_an_initial_state_of_another_task_and_an_unknown_camera_are_rejected(soup_env, builtin):
    with pytest.raises(UserError, match=r"shape \(109,\), expected \(110,\)"):
        soup_env.reset(SOUP[0][:-1])
    with pytest.raises(UserError, match="unknown camera 'agentveiw'; did you mean 'agentview'"):
        LiberoEnv("libero_object", 0, builtin, {"agentveiw": (64, 64)})
    with pytest.raises(UserError, match="unknown camera 'front'"):
        soup_env.render("front")


SCRIPT = """
import gc, logging, sys, weakref
def deny(event, arguments):
    if event == "open" and arguments[0] == "/tmp/robosuite.log":
        raise PermissionError("the file belongs to another user")
sys.addaudithook(deny)
file_handler = logging.FileHandler
from m2distill_sim.assets import find_assets
from m2distill_sim.libero_env import LiberoEnv
env = LiberoEnv("libero_object", 0, find_assets("builtin"), {"agentview": (32, 32)})
env.reset()
parts = [weakref.ref(part) for part in (env._env, env._sim, env._robot)]
gc.disable()
env.close()
assert [part() for part in parts] == [None] * 3  # also of the environment for which LIBERO is imported
assert logging.FileHandler is file_handler
print("ran")
"""


def _run(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env=os.environ | environment,
        input="",
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_an_environment_reads_no_input_prints_nothing_and_opens_no_shared_file():
    """The dependencies do all of it at import or exit.

    LIBERO reads stdin for a config. robosuite warns, opens a log file in /tmp, and asserts that CUDA_VISIBLE_DEVICES
    lists MUJOCO_EGL_DEVICE_ID. EGL contexts fail at exit.
    """
    result = _run(SCRIPT, MUJOCO_EGL_DEVICE_ID="0", CUDA_VISIBLE_DEVICES="GPU-1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "ran\n", "")


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"MUJOCO_GL": "glfw"}, "MUJOCO_GL is 'glfw', allowed egl or osmesa; unset it"),
        (
            {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "osmesa"},
            "PYOPENGL_PLATFORM is 'osmesa', expected the value of MUJOCO_GL, 'egl'; unset it",
        ),
    ],
)
def test_an_unusable_gl_platform_is_rejected_at_import(environment, message):
    """The process has its own import of mujoco, which reads the variables."""
    result = _run("import m2distill_sim.renderer", **environment)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == f"m2distill_policy.errors.UserError: {message}"


@pytest.mark.parametrize("device", ["GPU-abc", ""])
def test_an_egl_device_that_is_no_number_is_rejected(soup_env, monkeypatch, device):
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", device)
    with pytest.raises(UserError, match=f"MUJOCO_EGL_DEVICE_ID is '{device}', expected the number of an EGL device"):
        Renderer(soup_env.model, 32, 32)


NO_RENDERER = """
from m2distill_policy.errors import RendererError
from m2distill_sim.renderer import Renderer, mujoco
model = mujoco.MjModel.from_xml_string("<mujoco/>")
for attempt in range(2):  # mujoco fails in another way at the second attempt
    try:
        Renderer(model, 32, 32)
    except RendererError as error:
        print(error)
"""


def test_without_a_usable_renderer_the_missing_packages_are_named_in_one_line():
    result = _run(NO_RENDERER, MUJOCO_GL="egl", __EGL_VENDOR_LIBRARY_FILENAMES="/nowhere.json")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("no offscreen renderer with MUJOCO_GL=egl: ")
        assert line.endswith(
            "install libegl1 and libgl1-mesa-dri for MUJOCO_GL=egl, or libosmesa6 for MUJOCO_GL=osmesa"
        )


def test_a_closed_environment_is_freed_without_a_garbage_collection(builtin):
    """robosuite's robots, objects and samplers refer back to their environment."""
    env = LiberoEnv("libero_object", 1, builtin, {"agentview": (16, 16)})
    env.reset(initial_states("libero_object", 1)[0])
    parts = [weakref.ref(part) for part in (env._env, env._sim, env._robot, env._renderer)]
    gc.collect()
    gc.disable()
    try:
        env.close()
        assert [part() for part in parts] == [None] * 4
    finally:
        gc.enable()


def test_a_twin_draws_with_the_renderer_of_another_environment(soup_env, builtin):
    """Its own model places the furniture."""
    soup_env.reset(SOUP[0])
    with LiberoEnv("libero_object", 0, builtin, soup_env.cameras, twin=soup_env) as twin:
        other = twin.reset(SOUP[1]).images["agentview"]
        expected = twin.reset(SOUP[0]).images
    images = soup_env.observe().images  # the twin has left the renderer open
    assert all(np.array_equal(images[name], image) for name, image in expected.items())
    assert not np.array_equal(other, images["agentview"])
    with pytest.raises(ValueError, match="the twin is an environment of pick_up_the_alphabet_soup"):
        LiberoEnv("libero_object", 1, builtin, soup_env.cameras, twin=soup_env)


MEMORY = """
import sys
from m2distill_sim.env_factory import make_env
from m2distill_sim.suites import assets_of, initial_state

for suite in ("libero_goal", "libero_object", "libero_spatial", "libero_10"):
    for task in range(int(sys.argv[1])):
        with make_env(suite, task, assets_of(suite, "builtin"), {"agentview": (16, 16)}) as env:
            env.reset(initial_state(suite, task, 0))
        with open("/proc/self/statm") as file:
            print(int(file.read().split()[1]))
"""


@pytest.mark.slow
def test_closed_environments_leave_no_memory_behind():
    """Of 12 tasks, or all 40 with M2DISTILL_ALL_STATES; the heap reaches its size with the third."""
    tasks = "10" if os.environ.get("M2DISTILL_ALL_STATES") else "3"
    result = subprocess.run([sys.executable, "-c", MEMORY, tasks], capture_output=True, text=True, check=True)
    pages = [int(line) for line in result.stdout.splitlines()]
    assert len(pages) == 4 * int(tasks)
    assert max(pages[3:]) <= 1.1 * pages[2]
