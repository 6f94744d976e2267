"""No request or message of another node ends a node; a defect of its own does."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from builtin_interfaces.msg import Time
from harness import policy_node, run
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rosgraph_msgs.msg import Clock

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.bringup.processes import NodeProcesses

NO_SUCH_TYPE = 200


@pytest.fixture(scope="module")
def nodes(checkpoint_path, tmp_path_factory) -> Iterator[NodeProcesses]:
    with NodeProcesses([policy_node(checkpoint_path)], tmp_path_factory.mktemp("log")) as nodes:
        yield nodes
        assert "Traceback" in nodes.log_path("policy").read_text()


@pytest.fixture
def robot(client, nodes):
    """Client of a policy node that moves the arm."""
    client.start()
    run(client)

    def diagnosed() -> int:
        return nodes.log_path("policy").read_text().count("Traceback")

    before = diagnosed()
    yield client
    nodes.check()
    assert diagnosed() <= before + 1  # however often it is repeated
    assert client.transition(Transition.TRANSITION_DEACTIVATE)


def test_a_transition_that_does_not_fit_the_state_changes_nothing(robot):
    for number in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DESTROY, 255):
        assert not robot.transition(number)
    label = ChangeState.Request(transition=Transition(label="activate"))
    assert not robot.ask(robot.change_state, label, "an answer").success
    moved = len(robot.of("policy/action"))
    robot.wait(lambda: len(robot.of("policy/action")) >= moved + 10, "the arm to move on")
    assert robot.status.state == PolicyStatus.RUNNING
    assert robot.transition(Transition.TRANSITION_DEACTIVATE)
    assert robot.state() == State(label="inactive").label
    assert robot.transition(Transition.TRANSITION_ACTIVATE)


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_parameter_of_unknown_type_changes_nothing(robot, kind):
    name = "set_parameters" if kind is SetParameters else "set_parameters_atomically"
    setter = robot.create_client(kind, f"policy/{name}")
    robot.wait(setter.service_is_ready, name)

    def parameter(type: int) -> list[Parameter]:
        return [Parameter(name="use_sim_time", value=ParameterValue(type=type))]

    for _ in range(3):
        setter.call_async(kind.Request(parameters=parameter(NO_SUCH_TYPE)))
    answer = robot.ask(setter, kind.Request(parameters=parameter(ParameterType.PARAMETER_BOOL)), name)
    result = answer.results[0] if kind is SetParameters else answer.result
    assert result.successful, result.reason
    assert robot.call("stop").message == "stopped"


def test_a_negative_clock_is_ignored(robot):
    clock_pub = robot.create_publisher(Clock, "/clock", 1)
    robot.set_parameter("use_sim_time", True)

    def stamps_s(seconds: int) -> list[int]:
        """Publish this time as the clock; return the stamps of the node's messages."""
        clock_pub.publish(Clock(clock=Time(sec=seconds)))
        return [array.header.stamp.sec for array in robot.of("/diagnostics")]

    robot.wait(lambda: stamps_s(7)[-1] == 7, "the node to go by the clock")
    robot.wait(lambda: stamps_s(-1).count(7) >= 3, "the node to continue")
    robot.wait(lambda: stamps_s(8)[-1] == 8, "the node to go by the clock again")
    robot.set_parameter("use_sim_time", False)


BROKEN = """
import sys
from rclpy.node import Node
from m2distill_policy.ros.common.process import run_node

class Broken(Node):
    def __init__(self):
        super().__init__("broken")
        self.create_timer(0.01, self.tick)

    def tick(self):
        raise KeyError("a defect")

    def close(self):
        print("closed in order", flush=True)

sys.exit(run_node(Broken))
"""


def test_a_defect_of_the_node_itself_ends_it_in_order():
    node = subprocess.run([sys.executable, "-c", BROKEN], check=False, capture_output=True, text=True, timeout=60)
    assert node.returncode == 1 and node.stdout == "closed in order\n" and "KeyError: 'a defect'" in node.stderr
