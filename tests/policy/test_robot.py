"""Robots described by one arm file: their spec, topics, gripper, and the comparison with a checkpoint."""

import dataclasses

import numpy as np
import pytest

from m2distill_policy.control.teleop import teleop_defaults
from m2distill_policy.errors import UserError
from m2distill_policy.recording.episode_topics import episode_topics
from m2distill_policy.robot import other_robot, robot_from_settings, same_robot
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.safety.joint_limits import joint_ranges
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.spec import CameraSpec, PolicySpec, libero_spec

FILE = """
joint_names: [j1, j2, j3, j4, j5, j6]
joint_lower_rad: [-3, -3, -3, -3, -3, -3]
joint_upper_rad: [3, 3, 3, 3, 3, 3]
frame_id: base_link
cameras: [front, hand]
camera_topics: [/cam_1/color/image_raw, hand/image]
image_fit: pad
joint_states_topic: /arm/joint_states
gripper_joint_names: [knuckle]
gripper_joint_open: [0.0]
gripper_joint_closed: [0.8]
gripper_open_width_m: 0.085
rate_hz: 10
linear_scale_m: 0.02
linear_gain: 1
"""


@pytest.fixture
def arm(tmp_path):
    (tmp_path / "arm.yaml").write_text(FILE)
    return load_arm(str(tmp_path / "arm.yaml"))


def test_a_file_describes_the_spec_and_the_topics_of_a_robot(arm):
    robot = robot_from_settings(arm)
    spec = robot.spec()
    assert (len(spec.joint_names), spec.gripper_joint_names, spec.rate_hz) == (6, ("knuckle",), 10.0)
    assert [(camera.name, camera.image_fit) for camera in spec.cameras] == [("front", "pad"), ("hand", "pad")]
    assert (spec.action.frame_id, spec.action.gripper_open_width_m, spec.action.linear_scale_m) == (
        "base_link",
        0.085,
        0.02,
    )
    assert PolicySpec.from_json(spec.to_json()) == spec
    sources = {topic.name: topic.source for topic in episode_topics(spec, False, robot.topics)}
    assert sources["front/image_raw"] == "/cam_1/color/image_raw"
    assert sources["front/camera_info"] == "/cam_1/color/camera_info"
    assert (sources["hand/image_raw"], sources["hand/camera_info"]) == ("hand/image", "hand/camera_info")
    assert (sources["joint_states"], sources["twist_cmd"]) == ("/arm/joint_states", "")
    compressed = {topic.name: topic.source for topic in episode_topics(spec, True, robot.topics)}
    assert compressed["front/image_raw/compressed"] == "/cam_1/color/image_raw/compressed"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"joint_names": tuple("abcdef")}, "its joint_names is ['a', 'b', 'c', 'd', 'e', 'f'], the arm's is ['j1',"),
        ({"gripper_joint_names": (), "gripper_joint_signs": ()}, "its gripper_joint_names is [], the arm's is ['knu"),
        ({"gripper_joint_signs": (-1.0,)}, "its gripper_joint_signs is {'knuckle': -1.0}, the arm's is {'knuckle': 1"),
        ({"rate_hz": 20.0}, "its rate_hz is 20, the arm's is 10"),
        ({"cameras": (CameraSpec("top", 64, 64, True, "pad"),)}, "its cameras is ['top'], the arm's is ['front', 'h"),
        ({"cameras": (CameraSpec("hand", 64, 64, True),)}, "its image_fit is centre_crop, the arm's is pad"),
    ],
)
def test_a_checkpoint_of_another_robot_is_one_clear_line(arm, edit, message):
    robot = robot_from_settings(arm)
    with pytest.raises(UserError) as error:
        robot.check(dataclasses.replace(robot.spec(), **edit), "my_arm.yaml")
    assert str(error.value).startswith("the checkpoint is for another robot than arm my_arm.yaml: ")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("use a checkpoint of this robot's demonstrations, or correct the arm file")


def test_order_of_joints_and_unused_cameras_make_no_difference(arm):
    robot = robot_from_settings(arm)
    spec = robot.spec()
    robot.check(dataclasses.replace(spec, joint_names=spec.joint_names[::-1], cameras=spec.cameras[1:]), "a")


def test_files_without_joints_fit_every_checkpoint():
    for name in ("libero_sim", "unknown"):
        robot_from_settings(load_arm(name)).check(libero_spec(), name)


def test_joints_and_a_gripper_describe_a_robot_with_any_cameras():
    robot = robot_from_settings({"joint_names": ("a", "b"), "gripper_joint_names": ("c",), "frame_id": "base"})
    spec = robot.spec()
    assert [camera.name for camera in spec.cameras] == ["agentview", "wrist"]
    robot.check(dataclasses.replace(spec, cameras=(CameraSpec("top", 64, 64, True),)), "a")
    with pytest.raises(UserError, match="its joint_names is"):
        robot.check(libero_spec(), "a")


def test_a_robot_that_is_not_described_has_no_spec():
    with pytest.raises(UserError, match="the arm has no cameras and no joint_names; add them to the arm file, or give"):
        robot_from_settings({"frame_id": "base"}).spec()
    with pytest.raises(UserError, match="the arm has no frame_id; add"):
        robot_from_settings({"cameras": ("a",), "joint_names": ("b",)}).spec()


def test_the_opening_of_a_gripper_follows_from_its_joints(arm):
    robot = robot_from_settings(arm)
    assert [robot.opening_m(np.array([x])) for x in (0.0, 0.4, 0.8, 2.0)] == pytest.approx([0.085, 0.0425, 0, 0])
    assert robot_from_settings({}).opening_m(np.array([0.03, -0.03])) == pytest.approx(0.06)  # fingers
    assert robot_from_settings({"gripper_open_width_m": 0.1}).opening_m(np.zeros(0)) == 0.1  # no joint


def test_joint_names_alone_leave_the_limits_to_the_published_ones():
    names = ("shoulder_pan_joint", "elbow_joint")
    assert joint_ranges(names, SafetyLimits(joint_names=names))[1].tolist() == [-np.pi, np.pi]


def test_teleoperation_stays_within_what_a_policy_can_command(arm):
    defaults = teleop_defaults(arm)
    assert defaults["rate_hz"] == 10 and defaults["frame_id"] == "base_link" and defaults["gripper_open_m"] == 0.085
    assert defaults["linear_m_s"] == 0.1  # the default; a full action is 0.2 m/s
    assert teleop_defaults(arm | {"linear_scale_m": 0.004})["linear_m_s"] == pytest.approx(0.04)
    assert teleop_defaults({}) == {}


def test_a_spec_takes_over_the_robot_of_the_data(arm):
    robot = robot_from_settings(arm).spec()
    spec = same_robot(libero_spec(16), robot)
    assert not other_robot(spec, robot) and spec.history == 10 and spec.cameras == libero_spec(16).cameras
    assert other_robot(libero_spec(), robot).startswith("its joint_names is ['j1', 'j2',")
