"""The arm's frames, cameras and URDF agree with the simulation."""

import xml.etree.ElementTree as ET

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from m2distill_policy.cameras import CAMERAS
from m2distill_policy.safety.joint_limits import JOINT_LIMITS_RAD
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS
from m2distill_sim.env_factory import make_env
from m2distill_sim.kinematics import BASE, TCP, ArmKinematics, quat_xyzw

SIZES = {"agentview": (256, 256), "wrist": (180, 256)}
SIM_CAMERAS = {camera.name: camera.sim_camera for camera in CAMERAS}


@pytest.fixture(scope="module")
def env():
    with make_env("robosuite", 0, cameras=SIZES) as env:
        env.reset(None, 3)
        mujoco.mj_forward(env.model, env.data)  # otherwise sites are those before the last 2 ms
        yield env


@pytest.fixture(scope="module")
def arm(env) -> ArmKinematics:
    return ArmKinematics(env.model)


def positions(env) -> np.ndarray:
    observation = env.observe(render=False)
    return np.concatenate([observation.joint_positions, observation.gripper_positions * (1, -1)])


def test_the_hand_is_where_the_simulation_has_it(env, arm):
    observation = env.observe(render=False)
    hand = arm.base @ arm.pose(TCP, positions(env))
    np.testing.assert_allclose(hand[:3, 3], observation.ee_pos, atol=1e-9)
    assert abs(quat_xyzw(hand) @ observation.ee_quat_xyzw) == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(arm.pose(TCP, positions(env))[:3, 3]) < 0.855  # the arm's reach: in the base's frame


def test_the_urdf_has_the_same_frames_joints_and_limits(arm):
    root = ET.fromstring(arm.urdf())
    joints = {joint.find("child").get("link"): joint for joint in root.findall("joint")}
    assert {link.get("name") for link in root.findall("link")} == {*joints, BASE}
    moving = {j.get("name"): j for j in joints.values() if j.get("type") != "fixed"}
    assert tuple(moving) == arm.joint_names == PANDA_JOINTS + PANDA_FINGERS
    for name in PANDA_JOINTS:
        limit = moving[name].find("limit")
        assert (float(limit.get("lower")), float(limit.get("upper"))) == pytest.approx(JOINT_LIMITS_RAD[name])
        assert float(limit.get("effort")) > 0 and float(limit.get("velocity")) > 0
    for name in PANDA_FINGERS:
        assert [float(moving[name].find("limit").get(end)) for end in ("lower", "upper")] == [0, 0.04]
    boxes = [np.array(box.get("size").split(), float) for box in root.iter("box")]
    assert len(boxes) >= 11 and all((size > 0.001).all() and (size < 0.5).all() for size in boxes)

    rng = np.random.default_rng(0)
    for _ in range(3):
        drawn = dict(zip(arm.joint_names, rng.uniform(-1, 1, 9), strict=True))
        for link in joints:
            np.testing.assert_allclose(
                arm.pose(link, np.array([*drawn.values()])), forward(joints, link, drawn), atol=1e-7
            )


def forward(joints: dict[str, ET.Element], link: str, drawn: dict[str, float]) -> np.ndarray:
    """Return the transform of a link to the base, from the URDF alone."""
    found = np.eye(4)
    while link != BASE:
        joint = joints[link]
        origin, step = joint.find("origin"), np.eye(4)
        step[:3, 3] = np.array(origin.get("xyz").split(), float)
        roll, pitch, yaw = map(float, origin.get("rpy").split())
        step[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
        if joint.get("type") != "fixed":
            vector = np.array(joint.find("axis").get("xyz").split(), float) * drawn[joint.get("name")]
            motion = np.eye(4)
            if joint.get("type") == "revolute":
                motion[:3, :3] = Rotation.from_rotvec(vector).as_matrix()
            else:
                motion[:3, 3] = vector
            step = step @ motion
        found, link = step @ found, joint.find("parent").get("link")
    return found


@pytest.mark.parametrize("camera", SIZES)
def test_a_point_appears_in_the_image_where_the_calibration_projects_it(env, arm, camera):
    """The cube of robosuite's Lift is the only red object."""
    frame, mount = arm.mount(SIM_CAMERAS[camera])
    assert frame == {"agentview": BASE, "wrist": "panda_hand"}[camera]
    optical = arm.base @ arm.pose(frame, positions(env)) @ mount
    cube = np.linalg.inv(optical) @ [*env.data.body("cube_main").xpos, 1.0]
    assert cube[2] > 0.1  # in front of the camera
    lens = arm.intrinsics(SIM_CAMERAS[camera], *SIZES[camera])
    column = lens.focal_px * cube[0] / cube[2] + lens.centre_x_px
    row = lens.focal_px * cube[1] / cube[2] + lens.centre_y_px
    image = env.render(camera).astype(int)
    red = np.argwhere((image[..., 0] > 2 * image[..., 1]) & (image[..., 0] > 2 * image[..., 2]))
    assert len(red) > 30
    np.testing.assert_allclose((row, column), red.mean(axis=0), atol=0.02 * SIZES[camera][0])


def test_velocities_are_the_change_of_the_positions(env):
    for _ in range(3):
        before = positions(env)
        env.step(np.array([0.5, -0.3, -0.2, 0, 0.1, 0.2, 1.0]), render=False)
    arm_rad_s, fingers_m_s = env.joint_velocities()
    change = (positions(env) - before) / 0.05
    np.testing.assert_allclose(np.concatenate([arm_rad_s, fingers_m_s * (1, -1)]), change, atol=0.15)
    assert np.abs(change).max() > 0.2
