"""MoveIt Servo is switched to the commands that are sent, by a stand-in for its node."""

import time

import pytest
from harness import LIMIT_S
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from m2distill_policy.ros.common import servo
from m2distill_policy.ros.common.servo import ServoSwitch
from m2distill_policy.safety.arm_presets import load_arm, output_from_settings

needs_moveit_msgs = pytest.mark.skipif(servo.ServoCommandType is None, reason="moveit_msgs is not installed")
SERVICE = "servo_node/switch_command_type"


class Servo:
    """MoveIt Servo's service and the node that calls it."""

    def __init__(self, output: str):
        self.asked: list[int] = []
        self.accepts = True
        self.servo = Node("servo_node", enable_rosout=False)
        self.caller = Node("caller", enable_rosout=False)
        self.switch = ServoSwitch(self.caller, SERVICE, output)
        self.executor = SingleThreadedExecutor()
        for node in (self.servo, self.caller):
            self.executor.add_node(node)

    def start(self) -> None:
        self.service = self.servo.create_service(servo.ServoCommandType, SERVICE, self._on_request)

    def _on_request(self, request, response):
        self.asked.append(request.command_type)
        response.success = self.accepts
        return response

    def wait(self, happened) -> None:
        deadline_s = time.monotonic() + LIMIT_S
        while not happened(self.switch.check()):
            assert time.monotonic() < deadline_s
            self.executor.spin_once(timeout_sec=0.02)


@pytest.fixture
def make_servo(ros):
    made = []

    def make(output: str) -> Servo:
        made.append(Servo(output))
        return made[-1]

    yield make
    for pair in made:
        pair.switch.destroy()
        pair.servo.destroy_node()
        pair.caller.destroy_node()


@needs_moveit_msgs
@pytest.mark.parametrize(("output", "number"), [("twist", 1), ("pose", 2)])
def test_with_moveit_msgs_servo_is_switched_once_and_again_after_its_restart(make_servo, output, number, monkeypatch):
    monkeypatch.setattr(servo, "ASK_AGAIN_S", 0.2)
    pair = make_servo(output)
    assert f"no service {SERVICE}; start Servo" in pair.switch.check()
    pair.accepts = False
    pair.start()
    pair.wait(lambda problem: len(pair.asked) >= 2 and "has not accepted" in problem)
    pair.accepts = True
    pair.wait(lambda problem: not problem)
    count = len(pair.asked)
    pair.wait(lambda problem: not problem)
    assert set(pair.asked) == {number} and len(pair.asked) == count
    pair.servo.destroy_service(pair.service)
    pair.wait(lambda problem: "no service" in problem)
    pair.start()
    pair.wait(lambda problem: not problem)
    assert len(pair.asked) > count


def test_without_moveit_msgs_the_call_to_make_by_hand_is_logged_once(make_servo, monkeypatch, capfd):
    monkeypatch.setattr(servo, "ServoCommandType", None)
    pair = make_servo("pose")
    assert pair.switch.check() == pair.switch.check() == ""
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "moveit_msgs is not installed" in line]
    assert line.endswith(f"ros2 service call {SERVICE} moveit_msgs/srv/ServoCommandType '{{command_type: 2}}'")


def test_other_outputs_and_arms_without_servo_call_nothing(make_servo):
    pair = make_servo("array")
    assert pair.switch.check() == "" and ServoSwitch(pair.caller, "", "twist").check() == ""
    services = {name: output_from_settings(load_arm(name)).servo_service for name in ("fr3_servo", "ur_servo")}
    assert set(services.values()) == {SERVICE}
    assert output_from_settings(load_arm("fr3_impedance")).servo_service == ""
