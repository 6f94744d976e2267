"""A policy whose actions are not finite: the fault latches until it is reset."""

from collections.abc import Iterator

import pytest
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticStatus
from harness import KNOWN, policy_node

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup import NodeProcesses
from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def broken(client, checkpoint_path, tmp_path) -> Iterator:
    """The client of an active node whose policy has finite weights but draws from infinitely wide modes."""
    checkpoint = load_checkpoint(checkpoint_path)
    checkpoint.state_dict["head.std.bias"].fill_(3.4e38)
    save_checkpoint(tmp_path / "broken", checkpoint)
    with NodeProcesses([policy_node(tmp_path / "broken", autostart=True)], tmp_path) as nodes:
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
    broken.wait(lambda: any(array.status[0].level == DiagnosticStatus.ERROR for array in broken.of("/diagnostics")),
                "the error")

    broken.say("")
    broken.wait_for_state(PolicyStatus.FAULT)
    assert "not finite" in broken.call("reset_fault").message
    broken.wait_for_state(PolicyStatus.IDLE)
