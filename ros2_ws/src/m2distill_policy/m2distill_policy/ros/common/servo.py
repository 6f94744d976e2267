"""MoveIt Servo: it ignores twists and poses until its service `switch_command_type` has selected them.

Distributions have moveit_msgs, the PyPI wheels do not; only this module imports it.
"""

import time
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from m2distill_policy.ros.common.process import REPEAT_LOG_S

try:
    from moveit_msgs.srv import ServoCommandType
except ImportError:
    ServoCommandType = None

COMMAND_TYPES = {"twist": 1, "pose": 2}  # ServoCommandType.srv of moveit_msgs: TWIST, POSE
ASK_AGAIN_S = 5.0  # a request that is sent before both sides have discovered each other is lost


class ServoSwitch:
    """Client that selects the command type of MoveIt Servo, again after each restart of Servo.

    Args:
        node: Node of the client.
        service: Name of the service; empty: nothing is called.
        output: Format of the commands, a key of COMMAND_TYPES; for others nothing is called.
    """

    def __init__(self, node: Node, service: str, output: str):
        self._node, self._service, self._type = node, service, COMMAND_TYPES.get(output)
        self._commands = f"{output}s"
        self._asked: Future | None = None
        self._asked_s = 0.0  # by the steady clock
        self._switched = False
        self._client: Any = None
        if not service or self._type is None:
            return
        if ServoCommandType is not None:
            self._client = node.create_client(ServoCommandType, service)
        else:
            node.get_logger().warning(
                f"moveit_msgs is not installed; switch MoveIt Servo to {self._commands} yourself: ros2 service call "
                f"{service} moveit_msgs/srv/ServoCommandType '{{command_type: {self._type}}}'"
            )

    def check(self) -> str:
        """Call the service if Servo has not been switched; return why it is not, empty if it is or nobody knows.

        It does not wait: call it about once a second.
        """
        problem = self._problem() if self._client is not None else ""
        if problem:
            self._node.get_logger().warning(problem, throttle_duration_sec=REPEAT_LOG_S)
        return problem

    def _problem(self) -> str:
        if not self._client.service_is_ready():
            self._asked, self._switched = None, False
            return (
                f"MoveIt Servo is not switched to {self._commands}: there is no service {self._service}; start Servo, "
                "or change servo_service"
            )
        if self._switched:
            return ""
        if self._asked is None or time.monotonic() - self._asked_s > ASK_AGAIN_S:
            if self._asked is not None:
                self._client.remove_pending_request(self._asked)
            self._asked_s = time.monotonic()
            self._asked = self._client.call_async(ServoCommandType.Request(command_type=self._type))
            self._asked.add_done_callback(self._answered)
        return f"MoveIt Servo is not switched to {self._commands} yet: {self._service} has not accepted the request"

    def _answered(self, answer: Future) -> None:
        if answer is not self._asked:
            return  # of a Servo that has ended meanwhile
        self._switched = bool(answer.result().success)
        if self._switched:
            self._node.get_logger().info(f"MoveIt Servo accepts {self._commands} ({self._service})")

    def destroy(self) -> None:
        """Destroy the client."""
        if self._client is not None:
            self._node.destroy_client(self._client)
