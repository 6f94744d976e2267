"""Faults of a robot with the default limits: each stops the arm within 150 ms and is reported."""

import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from harness import Client, assert_stops, policy_node, run

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    """A node with the default limits; the most likely mode of the untrained policy is slow."""
    description = policy_node(checkpoint_path, arm="unknown", autostart=True, sampling="mode")
    with NodeProcesses([description], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def robot(client, node) -> Iterator[Client]:
    client.wait_until_active()
    client.sensors.reset()
    yield client
    client.instruct("")
    client.wait_for_state(PolicyStatus.IDLE)


def from_now(robot: Client, name: str, value) -> Callable[[], int]:
    """Set an attribute of the client; the fault starts with the next sensor data."""

    def break_it() -> int:
        setattr(robot, name, value)
        sent = robot.sent
        robot.wait(lambda: robot.sent > sent, "bad sensor data")
        return robot.sent_ns["wrist"]

    return break_it


def silenced(robot: Client, name: str, change: Callable[[], None]) -> Callable[[], int]:
    """Stop the messages of an input; the fault starts with its last one."""

    def break_it() -> int:
        change()
        return robot.sent_ns[name]

    return break_it


def test_a_camera_stops(robot):
    assert_stops(
        robot,
        "agentview: newest is older than 120 ms",
        silenced(robot, "agentview", lambda: robot.sizes.update(agentview=0)),
        lambda: robot.sizes.update(agentview=64),
    )


def test_joint_states_stop(robot):
    positions = robot.positions
    assert_stops(
        robot,
        "joint_states: newest is older than 120 ms",
        silenced(robot, "joint_states", lambda: setattr(robot, "positions", None)),
        lambda: setattr(robot, "positions", positions),
    )


def test_the_hands_pose_stops(robot):
    hand = robot.hand
    assert_stops(
        robot,
        "ee_pose: newest is older than 120 ms",
        silenced(robot, "ee_pose", lambda: setattr(robot, "hand", None)),
        lambda: setattr(robot, "hand", hand),
    )


def test_a_joint_that_is_not_a_number(robot):
    good = robot.positions
    bad = good.copy()
    bad[3] = np.nan
    assert_stops(
        robot,
        "joint_states is not finite at ['panda_joint4']",
        from_now(robot, "positions", bad),
        lambda: setattr(robot, "positions", good),
    )


def test_images_of_the_wrong_size(robot):
    assert_stops(
        robot,
        "camera wrist: got 32x32 px, expected 64x64",
        from_now(robot, "sizes", {"agentview": 64, "wrist": 32}),
        lambda: setattr(robot, "sizes", {"agentview": 64, "wrist": 64}),
    )


def test_images_of_an_encoding_that_does_not_exist(robot):
    assert_stops(robot, "'rgb7'", from_now(robot, "encoding", "rgb7"), lambda: setattr(robot, "encoding", "rgb8"))


def test_stamps_from_the_past(robot):
    assert_stops(
        robot,
        "newest is older than 120 ms",
        from_now(robot, "stamp_offset_ns", -10_000_000_000),
        lambda: setattr(robot, "stamp_offset_ns", 0),
    )


def test_stamps_from_the_future(robot):
    assert_stops(
        robot,
        "stamp is more than 50 ms in the future",
        from_now(robot, "stamp_offset_ns", 10_000_000_000),
        lambda: setattr(robot, "stamp_offset_ns", 0),
    )


def test_an_instruction_that_is_not_known(robot):
    def instruct() -> int:
        now_ns = robot.get_clock().now().nanoseconds
        robot.instruct("make coffee")
        return now_ns

    assert_stops(robot, "unknown instruction 'make coffee'; known: ", instruct, lambda: None)


def test_a_hand_outside_its_workspace_moves_only_back_inside(robot):
    run(robot)
    robot.hand = [0.4, 0.0, -0.1]  # below the floor of 0.02 m
    robot.wait(
        lambda: (
            any("workspace" in action.limited_by for action in robot.of("policy/action"))
            or len(robot.of("policy/action")) > 40
        ),
        "the workspace to limit a command",
    )
    robot.received.clear()
    robot.wait(lambda: len(robot.of("twist_cmd")) > 5, "commands")
    assert all(twist.twist.linear.z >= 0 for twist in robot.of("twist_cmd"))


def test_a_joint_near_its_limit_latches_until_the_arm_is_moved_and_the_fault_reset(robot):
    run(robot)
    robot.positions[5] = 3.70  # of 3.7525 rad
    robot.wait_for_state(PolicyStatus.FAULT, "panda_joint6 is at 3.700 rad")
    robot.wait_for_motion(False)
    robot.positions[5] = 1.5
    sent = robot.sent
    robot.wait(lambda: robot.sent > sent + 3, "good sensor data")
    assert robot.status.state == PolicyStatus.FAULT
    for service in ("start", "pause"):
        assert not robot.call(service).success
    robot.received.clear()
    assert robot.call("reset_fault").success
    robot.wait_for_state(PolicyStatus.IDLE, "cleared: panda_joint6")
    sent = robot.sent
    robot.wait(lambda: robot.sent > sent + 5, "good sensor data")
    assert not robot.of("policy/action")
    assert robot.call("start").success
    robot.wait_for_state(PolicyStatus.RUNNING)


def test_a_disk_failure_at_a_reload_leaves_the_active_policy_running(robot, checkpoint_path, tmp_path):
    run(robot)
    active = robot.status.checkpoint_id
    shutil.copytree(checkpoint_path, tmp_path / "next")
    (tmp_path / "next" / "weights.safetensors").unlink()
    robot.set_parameter("checkpoint", str(tmp_path / "next"))
    robot.wait(lambda: "lacks weights.safetensors" in robot.status.notice, "the rejection")
    shutil.rmtree(tmp_path / "next")
    robot.set_parameter("checkpoint", str(tmp_path / "next"))
    robot.wait(lambda: "it is not a directory" in robot.status.notice, "the rejection")
    robot.wait(
        lambda: any(
            "it is not a directory" in v.value for array in robot.of("/diagnostics") for v in array.status[0].values
        ),
        "the rejection in the diagnostics",
    )
    assert robot.status.checkpoint_id == active and robot.status.state == PolicyStatus.RUNNING
