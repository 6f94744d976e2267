"""Faults with a node of their own: actions that are not finite, a policy that raises, a clock that jumps."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus
from harness import KNOWN, STOP_MS, TRIALS, assert_stops, diagnosed, policy_node, run
from rosgraph_msgs.msg import Clock

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
from m2distill_policy.ros.common.conversions import stamp_from_ns


@pytest.fixture
def broken(client, checkpoint_path, tmp_path) -> Iterator:
    """The client of an active node whose policy has finite weights but samples from infinitely wide modes."""
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint.state_dict["head.std.bias"].fill_(3.4e38)
    save_checkpoint(tmp_path / "broken", checkpoint)
    with NodeProcesses([policy_node(tmp_path / "broken", autostart=True, sampling="stochastic")], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        yield client
        nodes.check()


def test_a_fault_ends_the_goal_holds_the_arm_and_latches_until_reset(broken):
    broken.wait(broken.execute.server_is_ready, "the action server")
    goal = ExecuteInstruction.Goal(instruction=KNOWN[0], time_limit=Duration(sec=60))
    handle = broken.result(broken.execute.send_goal_async(goal), "the goal to be accepted")
    result = broken.result(handle.get_result_async(), "the result").result
    assert result.termination_reason == ExecuteInstruction.Result.FAULT
    assert "not finite" in result.message
    broken.wait_for_state(PolicyStatus.FAULT, "not finite")
    assert broken.of("policy/action") == [] and broken.of("gripper_cmd") == []
    broken.wait_for_motion(False)
    broken.wait(
        lambda: any(array.status[0].level == DiagnosticStatus.ERROR for array in broken.of("/diagnostics")), "the error"
    )

    again = broken.result(broken.execute.send_goal_async(goal), "the answer")
    assert not again.accepted
    broken.wait(lambda: "a fault is latched" in broken.status.notice, "the reason of the rejection")
    for verb in ("INSTRUCT", "START"):
        answer = broken.result(broken.command_to(verb, KNOWN[1]), "the answer")
        assert not answer.accepted and answer.state == PolicyStatus.FAULT and "not finite" in answer.message
    broken.instruct("")
    broken.wait_for_state(PolicyStatus.FAULT)
    assert "not finite" in broken.call("reset_fault").message
    broken.wait_for_state(PolicyStatus.IDLE)
    sent = broken.sent
    broken.wait(lambda: broken.sent > sent + 10, "good inputs")
    assert broken.status.state == PolicyStatus.IDLE  # the faulty instruction is not followed again


def test_a_policy_that_raises_is_a_fault(client, checkpoint_path, tmp_path):
    """Its weights are finite and so are its actions while all joints are at zero; elsewhere its numbers overflow."""
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint.state_dict["joint.weight"].fill_(3e38)
    save_checkpoint(tmp_path / "raises", checkpoint)
    client.positions = np.zeros(9)
    with NodeProcesses([policy_node(tmp_path / "raises", autostart=True)], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()

        def joints_move() -> int:
            client.positions = np.full(9, 0.5)
            sent = client.sent
            client.wait(lambda: client.sent > sent, "bad sensor data")
            return client.sent_ns["wrist"]

        def repair() -> None:
            client.positions = np.zeros(9)
            assert "internal error, RuntimeError" in client.call("reset_fault").message

        assert_stops(client, "fault: internal error, RuntimeError: probability tensor", joints_move, repair)
        nodes.check()


def test_the_clock_jumps(client, checkpoint_path, tmp_path):
    """The test publishes the node's clock; the stamps stay behind when it jumps. The wall clock times the stop."""
    clock_pub = client.create_publisher(Clock, "/clock", 1)
    ahead_ns = 0

    def sense() -> None:
        now_ns = client.get_clock().now().nanoseconds
        clock_pub.publish(Clock(clock=stamp_from_ns(now_ns + ahead_ns)))
        client.sense(now_ns)

    client.sensors.callback = sense
    with NodeProcesses(
        [policy_node(checkpoint_path, arm="unknown", sampling="mode", autostart=True, use_sim_time=True)], tmp_path
    ):
        client.wait_until_active()
        client.sensors.reset()
        for jump_ns, reason in (
            (60_000_000_000, "newest is older than 120 ms"),
            (-60_000_000_000, "more than 50 ms in the future"),
        ):
            times_ms = []
            while not times_ms or (times_ms[-1] > STOP_MS and len(times_ms) < TRIALS):
                run(client)
                client.received.clear()
                ahead_ns, sent = jump_ns, client.sent
                client.wait(lambda n=sent: client.sent > n, "the jump")
                jumped_s = time.monotonic()
                client.wait_for_motion(False)
                times_ms.append((time.monotonic() - jumped_s) * 1000)
                client.wait(lambda r=reason: diagnosed(client, r), "the diagnostics")
                ahead_ns = 0
            assert times_ms[-1] <= STOP_MS, times_ms
