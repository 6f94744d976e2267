"""Robots that are described by the pose of their hand, and robots that are commanded by poses, from bag to action."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from bag_writer import MS, START_NS, header, image, of, policy_action, twist, write_bag

from m2distill_policy.cameras import find_camera
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import DataError, UserError
from m2distill_policy.observations.poses import Pose, displace, hand_state
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import limits_of, load_arm
from m2distill_policy.spec import HAND_DOWN, HAND_POSE
from m2distill_training.data.lerobot.lerobot_export import export_lerobot
from m2distill_training.data.libero.reader import Demo, open_libero
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.engine.train import train
from m2distill_training.presets import debug

STEPS = 20
LINES = """
frame_id: base
cameras: [top]
image_px: 16
state: hand
gripper_output: none
joint_margin_rad: -10.0
workspace_min_m: [-.inf, -.inf, -.inf]
workspace_max_m: [.inf, .inf, .inf]
linear_gain: 0.5
angular_gain: 0.5
max_first_linear_m_s: 10.0
max_first_angular_rad_s: 20.0
"""
SPEED, RATE = np.array([0.2, -0.1, 0.05, 0.5, 1.0, -0.4]), 20.0  # of the commands, m/s and rad/s


def pose_at(step: int) -> Pose:
    """The hand points down and swings through the half turn, where a quaternion's w changes its sign."""
    moved = np.array([0.01 * step, 0.0, 0.0]), np.array([0.1 * (step - STEPS / 2), 0.05, 0.0])
    return displace(Pose(np.array([0.4, 0.0, 0.3]), np.array(HAND_DOWN)), *moved)


def message(pose: Pose, stamp_ns: int, frame_id: str = "base"):
    position = of("geometry_msgs/Point")(*pose.position_m.tolist())
    orientation = of("geometry_msgs/Quaternion")(*pose.quat_xyzw.tolist())
    return of("geometry_msgs/PoseStamped")(header(stamp_ns, frame_id), of("geometry_msgs/Pose")(position, orientation))


def events(output: str = "twist", frame_id: str = "base", acted: bool = False) -> list:
    """Return what the robot publishes for a second at 20 Hz; every other quaternion has the other sign."""
    found = [("/instruction", 0, of("std_msgs/String")("wave"))]
    for step in range(STEPS):
        stamp = START_NS + step * 50 * MS
        pose = pose_at(step)
        shown = Pose(pose.position_m, pose.quat_xyzw * (-1) ** step)
        found += [("/top/image_raw", stamp, image(stamp, step)), ("/ee_pose", stamp, message(shown, stamp, frame_id))]
        if output == "twist":
            vector = of("geometry_msgs/Vector3")
            command = twist(stamp, SPEED[:3], "base")
            command.twist.angular = vector(*SPEED[3:].tolist())
            found.append(("/twist_cmd", stamp + 1, command))
        elif output == "pose":
            target = displace(pose, SPEED[:3] / RATE, SPEED[3:] / RATE)
            found.append(("/target_pose", stamp + 1, message(target, stamp)))
        else:
            layout = of("std_msgs/MultiArrayLayout")([], 0)
            found.append(("/velocity_cmd", stamp + 1, of("std_msgs/Float64MultiArray")(layout, SPEED)))
        if acted:
            found.append(("/policy/action", stamp + 2, policy_action(stamp, stamp)))
    return found


@pytest.fixture
def make_arm(tmp_path):
    def make(lines: str = "") -> str:
        path = tmp_path / "arm.yaml"
        path.write_text(LINES + lines)
        return str(path)

    return make


def imported(bag: Path, out: Path, **options) -> Demo:
    (report,) = import_bags([bag], out, instruction="wave", **options)
    assert not report.dropped and report.steps == STEPS
    with open_libero(out / report.file, "before", [find_camera("top")]) as file:
        (demo,) = file.demos()
    return demo


def test_a_robot_of_poses_alone_is_imported_learned_and_driven(make_arm, tmp_path):
    arm = make_arm()
    demo = imported(write_bag(tmp_path / "bag", events()), tmp_path / "data", arm=arm)
    np.testing.assert_array_equal(demo.joint, [hand_state(pose_at(step), HAND_DOWN) for step in range(STEPS)])
    assert np.abs(np.diff(demo.joint, axis=0)).max() < 0.2 and demo.gripper.shape == (STEPS, 0)
    short = dataclasses.replace(debug(), optim=dataclasses.replace(debug().optim, budget=1, budget_unit="steps"))
    data = [tmp_path / "data/wave_demo.hdf5"]
    with pytest.raises(
        DataError, match="have the hand of the arm, asked for is the joints; learn them with --state hand"
    ):
        train(short, data, tmp_path / "run")
    checkpoint = load_checkpoint(train(dataclasses.replace(short, state="hand"), data, tmp_path / "run").checkpoint(1))
    spec = checkpoint.spec
    assert (spec.joint_names, spec.hand_frame_id) == (HAND_POSE, "base")
    robot = robot_from_settings(load_arm(arm))
    robot.check(spec, arm)

    # live, with the other signs: the same inputs, bit for bit
    policy, seen = InferencePolicy(checkpoint, "mode", 0), []
    step = policy.step
    policy.step = lambda observation: (seen.append(observation.joint), step(observation))[1]
    session = PolicySession(spec, policy, checkpoint.instructions, limits_of(arm))
    session.set_instruction("wave")
    for number in range(STEPS):
        pose, now_ns = pose_at(number), number * 50 * MS
        session.observe_image("top", np.full((64, 64, 3), number, np.uint8), now_ns)
        session.observe_pose(pose.position_m, -pose.quat_xyzw * (-1) ** number, now_ns)
        assert np.isfinite(session.tick(now_ns).linear_m_s).all()
    np.testing.assert_array_equal(seen, demo.joint)


def test_demonstrations_of_another_robot_are_exported_with_its_names_units_and_rate(make_arm, tmp_path):
    imported(write_bag(tmp_path / "bag", events()), tmp_path / "data", arm=make_arm())
    info = export_lerobot([tmp_path / "data/wave_demo.hdf5"], tmp_path / "lerobot", True, [find_camera("top")])
    state = info["features"]["observation.state"]
    assert (state["names"], state["shape"], info["robot_type"]) == (list(HAND_POSE), [6], "other")
    assert state["info"]["units"] == ["m"] * 3 + ["rad"] * 3


def test_the_state_of_a_recorded_robot_of_joints_can_be_the_pose_of_its_hand(make_arm, tmp_path):
    arm = make_arm("joint_names: [elbow_joint]\n").replace("arm.yaml", "joints.yaml")
    Path(arm).write_text((LINES + "joint_names: [elbow_joint]\n").replace("state: hand", ""))
    spec = robot_from_settings(load_arm(arm)).spec()
    bag = write_bag(tmp_path / "bag", events())
    demo = imported(bag, tmp_path / "data", arm=arm, spec=spec, state="hand")
    np.testing.assert_array_equal(demo.joint[3], hand_state(pose_at(3), HAND_DOWN))
    with pytest.raises(DataError, match="it has no message on joint_states"):
        import_bags([bag], tmp_path / "other", instruction="wave", arm=arm)


def test_a_pose_in_another_frame_is_named(make_arm, tmp_path):
    bag = write_bag(tmp_path / "bag", events(frame_id="world"))
    with pytest.raises(DataError, match="ee_pose: is in the frame 'world', expected 'base'"):
        import_bags([bag], tmp_path / "data", instruction="wave", arm=make_arm())


def test_the_pose_may_be_in_the_base_frame_that_the_arm_file_names_as_for_the_node(make_arm, tmp_path):
    bag = write_bag(tmp_path / "bag", events("pose", frame_id="arm_base"))
    imported(bag, tmp_path / "data", arm=make_arm("output: pose\nbase_frame: arm_base\n"))


@pytest.mark.parametrize("acted", [False, True])
@pytest.mark.parametrize("output", ["twist", "pose", "array"])
def test_actions_are_those_of_the_commands_in_every_format(make_arm, tmp_path, output, acted):
    bag = write_bag(tmp_path / "bag", events(output, acted=acted))
    demo = imported(bag, tmp_path / "data", arm=make_arm(f"output: {output}\n"))
    expected = SPEED / RATE / np.repeat([0.05 * 0.5, 0.5 * 0.5], 3)  # the scales and the gains
    np.testing.assert_allclose(demo.action, np.tile([*expected, -1.0], (STEPS, 1)), atol=1e-6)


def test_commands_in_another_format_than_the_arm_s_are_named_with_the_remedy(make_arm, tmp_path):
    bag = write_bag(tmp_path / "bag", events("pose"))
    with pytest.raises(
        DataError, match="no message on twist_cmd, .* but on target_pose; name an arm file with `output: p"
    ):
        import_bags([bag], tmp_path / "data", instruction="wave", arm=make_arm())
    without = write_bag(tmp_path / "without", [e for e in events("pose") if e[0] != "/ee_pose"])
    with pytest.raises(DataError, match="it has no message on ee_pose"):
        import_bags([without], tmp_path / "data", instruction="wave", arm=make_arm("output: pose\n"))


def test_a_policy_of_another_frame_does_not_serve_an_arm(make_arm, tmp_path):
    arm = make_arm()
    robot = robot_from_settings(load_arm(arm))
    other = dataclasses.replace(robot.spec(), hand_frame_id="world")
    with pytest.raises(UserError, match="its hand_frame_id is world, the arm's is base"):
        robot.check(other, arm)
    turned = dataclasses.replace(robot.spec(), hand_reference=(0.0, 1.0, 0.0, 0.0))
    robot_from_settings(load_arm(arm)).check(turned, arm)  # the file does not state it
    arm = make_arm("hand_reference: [1, 0, 0, 0]\n")
    with pytest.raises(UserError, match=r"its hand_reference is \[0.0, 1.0, 0.0, 0.0\], the arm's is \[1.0,"):
        robot_from_settings(load_arm(arm)).check(turned, arm)
    with pytest.raises(UserError, match="hand_reference is .*expected a unit quaternion"):
        load_arm(make_arm("hand_reference: [1, 1, 0, 0]\n"))
