"""The policy node as a process, over real DDS: lifecycle, holds, the action and the services."""

from collections.abc import Iterator

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from harness import KNOWN, policy_node
from lifecycle_msgs.msg import Transition

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common.conversions import stamp_to_ns, twist_to_numpy

Result = ExecuteInstruction.Result
POLICY_TOPICS = ("twist_cmd", "gripper_cmd", "policy/action", "policy/status", "/diagnostics")


@pytest.fixture(scope="module")
def node(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    with NodeProcesses([policy_node(checkpoint_path)], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        nodes.check()


@pytest.fixture
def running(client, node):
    """Client of an active node that follows the first instruction with valid sensor data; cleaned up afterwards."""
    client.start()
    client.instruct(KNOWN[0])
    client.wait_for_state(PolicyStatus.RUNNING)
    yield client
    if client.state() == "active":
        assert client.transition(Transition.TRANSITION_DEACTIVATE)
    if client.state() == "inactive":
        assert client.transition(Transition.TRANSITION_CLEANUP)


def test_nothing_is_published_before_active_nor_after_cleanup(client, node):
    client.sensors.reset()
    assert client.transition(Transition.TRANSITION_CONFIGURE)
    client.instruct(KNOWN[0])
    client.wait(lambda: client.sent >= 30, "1.5 s of sensor data")
    assert client.state() == "inactive"
    assert client.received == []
    assert client.transition(Transition.TRANSITION_CLEANUP)
    client.wait(lambda: not any(client.count_publishers(topic) for topic in POLICY_TOPICS), "the publishers to go")


def test_an_invalid_checkpoint_leaves_the_node_unconfigured_and_can_be_replaced(
    client, node, checkpoint_path, tmp_path
):
    client.set_parameter("checkpoint", str(tmp_path))
    assert not client.transition(Transition.TRANSITION_CONFIGURE)
    assert client.state() == "unconfigured"
    assert f"{tmp_path} is not a checkpoint" in node.log_path("policy").read_text()
    client.set_parameter("checkpoint", str(checkpoint_path))
    assert client.transition(Transition.TRANSITION_CONFIGURE)
    assert client.transition(Transition.TRANSITION_CLEANUP)


def test_a_command_answers_an_observation_on_all_topics(running):
    running.wait(lambda: len(running.of("policy/action")) >= 3, "actions")
    action = running.of("policy/action")[-1]
    twist = running.wait(
        lambda: next((twist for twist in running.of("twist_cmd") if twist.header.stamp == action.header.stamp), None),
        "the action's twist",
    )
    assert twist.header.frame_id == "panda_link0"
    clipped = np.clip(action.action, -1, 1).astype(float)
    linear, angular = twist.twist.linear, twist.twist.angular
    np.testing.assert_allclose([linear.x, linear.y, linear.z], clipped[:3] * 0.05 * 20, atol=1e-12)
    np.testing.assert_allclose([angular.x, angular.y, angular.z], clipped[3:6] * 0.5 * 20, atol=1e-12)
    assert all(0 <= m.data <= 0.08 for m in running.of("gripper_cmd"))
    assert action.instruction == KNOWN[0]
    assert action.checkpoint_id == running.status.checkpoint_id and len(action.checkpoint_id) == 64
    assert np.isfinite([action.log_prob, action.entropy]).all() and 0 <= action.mode < 5


def test_an_image_of_the_wrong_size_holds_the_arm_until_a_valid_one_arrives(running):
    running.sizes["wrist"] = 32
    running.wait_for_state(PolicyStatus.HOLDING, "camera wrist: got 32x32 px, expected 64x64")
    running.wait_for_motion(False)
    running.sizes["wrist"] = 64
    running.wait_for_state(PolicyStatus.RUNNING)


def test_joints_that_are_not_finite_hold_the_arm_until_valid_ones_arrive(running):
    running.positions[3] = np.nan
    running.wait_for_state(PolicyStatus.HOLDING, "joint_states is not finite at ['panda_joint4']")
    running.positions[3] = 0.1
    running.wait_for_state(PolicyStatus.RUNNING)


def test_a_stopped_camera_holds_the_arm_until_it_returns(running):
    running.sizes["agentview"] = 0
    running.wait_for_state(PolicyStatus.HOLDING, "agentview: newest is")
    running.wait_for_state(PolicyStatus.HOLDING, "agentview: silent for more than 1 s")
    running.wait_for_motion(False)
    warning = running.wait(
        lambda: next(
            (d.status[0] for d in running.of("/diagnostics") if "agentview: silent" in d.status[0].message), None
        ),
        "the diagnostics",
    )
    assert warning.level == b"\x01"
    assert {v.key: v.value for v in warning.values}["agentview (Hz)"] in ("0.0", "1.0")
    running.sizes["agentview"] = 64
    running.wait_for_state(PolicyStatus.RUNNING)


def test_an_unknown_instruction_is_rejected_with_the_known_ones_and_the_arm_is_held(running):
    running.instruct("make coffee")
    status = running.wait_for_state(PolicyStatus.IDLE, "unknown instruction 'make coffee'")
    assert list(status.known_instructions) == sorted(KNOWN) and all(text in status.reason for text in KNOWN)
    running.wait_for_motion(False)
    running.instruct("Wave.")
    assert running.wait_for_state(PolicyStatus.RUNNING).instruction == "wave"


def test_pause_start_and_stop(running):
    assert running.call("pause").success
    running.wait_for_state(PolicyStatus.PAUSED)
    assert running.status.instruction == KNOWN[0]
    assert running.call("start").success
    running.wait_for_state(PolicyStatus.RUNNING)
    assert running.call("stop").success
    running.wait_for_state(PolicyStatus.IDLE, "stopped")
    rejected = running.call("pause")
    assert not rejected.success and "cannot pause" in rejected.message


def test_limits_are_read_by_configure_and_a_later_change_is_rejected(running):
    for name, value in (
        ("max_linear_m_s", 0.01),
        ("workspace_min_m", [0.1, 0.1, 0.1]),
        ("output", "pose"),
        ("seed", 7),
        ("min_similarity", 0.5),
    ):
        assert "it is read by `configure` only" in running.rejection(name, value), name
    assert running.rejection("seed", 0) == ""  # what it is already
    assert running.transition(Transition.TRANSITION_DEACTIVATE)
    assert "it is read by `configure` only" in running.rejection("max_linear_m_s", 0.01)
    assert running.transition(Transition.TRANSITION_CLEANUP)
    running.set_parameter("max_linear_m_s", 0.01)
    running.received.clear()
    running.start()
    running.instruct(KNOWN[0])
    running.wait(lambda: any("speed" in a.limited_by for a in running.of("policy/action")), "the limit to act")
    speeds = [np.linalg.norm(twist_to_numpy(twist)[0]) for twist in running.of("twist_cmd")]
    assert 0 < max(speeds) <= 0.01 + 1e-12
    assert running.transition(Transition.TRANSITION_DEACTIVATE)
    assert running.transition(Transition.TRANSITION_CLEANUP)
    running.set_parameter("max_linear_m_s", 3**0.5)


def test_the_zero_command_is_the_last_one_on_deactivate(running):
    running.wait_for_motion(True)
    assert running.transition(Transition.TRANSITION_DEACTIVATE)
    running.wait_for_motion(False)
    sent = running.sent
    running.wait(lambda: running.sent > sent + 10, "half a second of sensor data")
    running.wait_for_motion(False)
    zero_ns = stamp_to_ns(running.of("twist_cmd")[-1].header.stamp)
    assert all(stamp_to_ns(action.header.stamp) <= zero_ns for action in running.of("policy/action"))
    assert not running.call("start").success


def goal(text: str, limit_s: float) -> ExecuteInstruction.Goal:
    return ExecuteInstruction.Goal(
        instruction=text, time_limit=Duration(sec=int(limit_s), nanosec=int(limit_s % 1 * 1e9))
    )


def test_a_goal_that_reaches_its_time_limit_is_aborted_and_reports_its_progress(running):
    feedback = []
    sending = running.execute.send_goal_async(goal(KNOWN[1], 0.8), lambda m: feedback.append(m.feedback))
    handle = running.result(sending, "the goal to be accepted")
    assert handle.accepted
    end = running.result(handle.get_result_async(), "the result")
    assert (end.status, end.result.termination_reason) == (GoalStatus.STATUS_ABORTED, Result.TIME_LIMIT)
    assert feedback and feedback[-1].steps > 0
    running.wait_for_state(PolicyStatus.IDLE, "time limit")
    running.wait_for_motion(False)


def test_goals_end_by_cancel_by_another_goal_and_by_stop_and_not_by_an_instruction(running):
    def start():
        handle = running.result(running.execute.send_goal_async(goal(KNOWN[1], 60)), "the goal to be accepted")
        running.wait(
            lambda: running.status.instruction == KNOWN[1] and running.status.state == PolicyStatus.RUNNING,
            "the goal to run",
        )
        return handle

    def end(handle):
        answer = running.result(handle.get_result_async(), "the result")
        return answer.status, answer.result.termination_reason

    cancelled = start()
    running.result(cancelled.cancel_goal_async(), "the cancellation")
    assert end(cancelled) == (GoalStatus.STATUS_CANCELED, Result.CANCELED)
    superseded = start()
    running.publish_instruction(KNOWN[0])
    answer = running.result(running.command_to("INSTRUCT", KNOWN[0]), "the answer")
    assert not answer.accepted and "a goal has the arm" in answer.message
    assert (answer.state, answer.instruction) == (PolicyStatus.RUNNING, KNOWN[1])
    assert running.result(running.execute.send_goal_async(goal(KNOWN[0], 60)), "the next goal").accepted
    assert end(superseded) == (GoalStatus.STATUS_ABORTED, Result.PREEMPTED)
    stopped = start()
    assert running.call("stop").success
    assert end(stopped) == (GoalStatus.STATUS_ABORTED, Result.STOPPED)


def test_goals_are_rejected_without_a_time_limit_and_when_not_active(running):
    assert not running.result(running.execute.send_goal_async(goal(KNOWN[0], 0)), "the answer").accepted
    assert running.transition(Transition.TRANSITION_DEACTIVATE)
    assert not running.result(running.execute.send_goal_async(goal(KNOWN[0], 1)), "the answer").accepted
