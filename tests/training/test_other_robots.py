"""Robots of other shapes from bag to action: joints, gripper and cameras come from their arm files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from bag_writer import MS, START_NS, header, of, twist, write_bag

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_of, load_arm
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.engine.train import train
from m2distill_training.presets import debug

PERMISSIVE = """
frame_id: base
image_px: 16
image_fit: {fit}
joint_margin_rad: -10.0
workspace_min_m: [-.inf, -.inf, -.inf]
workspace_max_m: [.inf, .inf, .inf]
linear_gain: 1.0
max_first_linear_m_s: 10.0
max_first_angular_rad_s: 20.0
"""
SIX, SEVEN = ([f"j{i}" for i in range(1, count + 1)] for count in (6, 7))
BARE = (
    f"joint_names: {SIX}\njoint_lower_rad: {[-9] * 6}\njoint_upper_rad: {[9] * 6}\ncameras: [top]\ngripper_output: none"
)
HAND = (
    f"joint_names: {SEVEN}\njoint_lower_rad: {[-9] * 7}\njoint_upper_rad: {[9] * 7}\n"
    "cameras: [a, b, c, d]\ngripper_joint_names: [left, right]\nrate_hz: 10"
)
ARMS = {
    "six joints, one camera, no gripper": (BARE, "centre_crop"),
    "seven joints, four cameras, two fingers": (HAND, "pad"),
}


def wide(stamp_ns: int, value: int):
    """Return an image of 40x24 px."""
    pixels = np.full((24, 40, 3), value, np.uint8)
    return of("sensor_msgs/Image")(header(stamp_ns), 24, 40, "rgb8", 0, 120, pixels.reshape(-1))


def events(arm) -> list:
    """Return what the robot publishes for a second, at 20 Hz."""
    robot = robot_from_settings(arm)
    names = [*robot.joint_names, *robot.parameters.gripper_joint_names]
    found = [("/instruction", 0, of("std_msgs/String")("wave"))]
    for ms in range(0, 1000, 50):
        stamp = START_NS + ms * MS
        positions = np.array([ms / 1e4] * len(robot.joint_names) + [0.03] * (len(names) - len(robot.joint_names)))
        state = of("sensor_msgs/JointState")(header(stamp), names, positions, np.zeros(0), np.zeros(0))
        found += [(f"/{camera}/image_raw", stamp, wide(stamp, 200)) for camera in robot.parameters.cameras]
        found += [("/joint_states", stamp, state), ("/twist_cmd", stamp + 1, twist(stamp, (0.1, 0.0, 0.0), "base"))]
        if robot.parameters.gripper_joint_names:
            found.append(("/gripper_cmd", stamp, of("std_msgs/Float64")(0.08)))
    return sorted(found, key=lambda event: event[1])


@pytest.fixture(params=ARMS)
def arm_path(request, tmp_path) -> Path:
    lines, fit = ARMS[request.param]
    path = tmp_path / "arm.yaml"
    path.write_text(lines + PERMISSIVE.format(fit=fit))
    return path


def short():
    config = debug()
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, budget=1, budget_unit="steps"))


def test_a_robot_of_any_shape_is_imported_learned_and_driven(arm_path, tmp_path):
    arm = load_arm(str(arm_path))
    robot = robot_from_settings(arm)
    bag = write_bag(tmp_path / "bag", events(arm))  # as of `ros2 bag record`
    (report,) = import_bags([bag], tmp_path / "data", instruction="wave", arm=str(arm_path))
    assert not report.dropped
    run = train(short(), [tmp_path / "data" / report.file], tmp_path / "run")
    checkpoint = load_checkpoint(run.checkpoint(1))
    robot.check(checkpoint.spec, "arm.yaml")
    assert checkpoint.spec.joint_names == robot.joint_names
    assert [camera.name for camera in checkpoint.spec.cameras] == list(robot.parameters.cameras)
    assert {camera.image_fit for camera in checkpoint.spec.cameras} == {robot.parameters.image_fit}
    session = PolicySession(
        checkpoint.spec, InferencePolicy(checkpoint), checkpoint.instructions, limits_of(str(arm_path))
    )
    session.set_instruction("wave")
    for camera in checkpoint.spec.cameras:
        session.observe_image(camera.name, np.full((48, 80, 3), 200, np.uint8), 0)
    names = [*robot.joint_names, *robot.parameters.gripper_joint_names]
    session.observe_joints(names, [0.03] * len(names), 0)
    command = session.tick(0)
    assert np.isfinite(command.linear_m_s).all(), command


def test_two_robots_are_not_learned_in_one_run(tmp_path, libero_file):
    path = tmp_path / "arm.yaml"
    path.write_text(BARE + PERMISSIVE.format(fit="centre_crop"))
    arm = load_arm(str(path))
    bag = write_bag(tmp_path / "bag", events(arm))
    (report,) = import_bags([bag], tmp_path / "data", instruction="wave", arm=str(path))
    with pytest.raises(UserError, match=r"of another robot: its joint_names is \['panda_joint1'.*use files of one"):
        train(short(), [tmp_path / "data" / report.file, libero_file()], tmp_path / "run")


def test_a_policy_of_another_robot_does_not_serve_an_import(tmp_path):
    path = tmp_path / "arm.yaml"
    path.write_text(HAND + PERMISSIVE.format(fit="pad"))
    bag = write_bag(tmp_path / "bag", events(load_arm(str(path))))
    other = tmp_path / "other.yaml"
    other.write_text(BARE + PERMISSIVE.format(fit="pad"))
    spec = robot_from_settings(load_arm(str(other))).spec()
    with pytest.raises(UserError, match=r"for another robot than arm .*arm.yaml: its joint_names is \['j1', .*'j6'\]"):
        import_bags([bag], tmp_path / "data", spec=spec, instruction="wave", arm=str(path))
