"""Commands to the gripper, as an opening in m: on a topic, or to an action server of control_msgs.

Every ROS 2 distribution has control_msgs, but the PyPI wheels do not; only this module imports it.
"""

import time
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.task import Future
from std_msgs.msg import Float64

from m2distill_policy.control.gripper_filter import GripperFilter
from m2distill_policy.errors import UserError
from m2distill_policy.safety.output_parameters import OutputParameters

try:
    from control_msgs.action import GripperCommand
except ImportError:
    GripperCommand = None
try:
    from control_msgs.action import ParallelGripperCommand  # of parallel_gripper_action_controller
except ImportError:
    ParallelGripperCommand = None


class GripperTopic:
    """Gripper that subscribes to `gripper_cmd`."""

    def __init__(self, publisher: Publisher):
        self._pub = publisher

    def send(self, width_m: float) -> None:
        self._pub.publish(Float64(data=width_m))

    def clear(self) -> None:
        """Do nothing: every command is published."""

    def destroy(self) -> None:
        """Do nothing: the publisher belongs to the caller."""


class GripperAction:
    """Gripper with an action server; `control/gripper_filter.py` decides which commands become goals.

    Every command is also published on `gripper_cmd`, where the recorder finds it.
    """

    def __init__(self, node: Node, publisher: Publisher, settings: OutputParameters):
        self._pub, self._settings, self._parallel = publisher, settings, settings.gripper_output == "parallel_action"
        self._kind = ParallelGripperCommand if self._parallel else GripperCommand
        if self._kind is None:
            raise UserError(
                f"gripper_output is {settings.gripper_output}, but control_msgs is not installed or is too old; "
                "install ros-$ROS_DISTRO-control-msgs, or set gripper_output to width"
            )
        from rclpy.action import ActionClient

        self._filter = GripperFilter(settings.gripper_hysteresis_m, settings.gripper_dwell_s)
        self._client = ActionClient(node, self._kind, "gripper_action")

    def send(self, width_m: float) -> None:
        self._pub.publish(Float64(data=width_m))
        if not self._client.server_is_ready():
            self.clear()  # a command after it has started is sent
        elif self._filter.is_due(width_m, time.monotonic()):
            self._client.send_goal_async(self._goal(width_m)).add_done_callback(self._answered)

    def _goal(self, width_m: float) -> Any:
        settings, goal = self._settings, self._kind.Goal()
        position = settings.gripper_action_offset + settings.gripper_action_scale * width_m
        if self._parallel:
            goal.command.name = [settings.gripper_joint] if settings.gripper_joint else []
            goal.command.position, goal.command.effort = [position], [settings.gripper_effort_n]
        else:
            goal.command.position, goal.command.max_effort = position, settings.gripper_effort_n
        return goal

    def _answered(self, answer: Future) -> None:
        if not answer.result().accepted:
            self.clear()

    def clear(self) -> None:
        """Send the next opening in any case, because others may move the gripper meanwhile."""
        self._filter.clear()

    def destroy(self) -> None:
        self._client.destroy()


class NoGripper:
    """An arm without a gripper."""

    def send(self, width_m: float) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""

    def destroy(self) -> None:
        """Do nothing."""


Gripper = GripperTopic | GripperAction | NoGripper


def make_gripper(
    node: Node, settings: OutputParameters, create_publisher: Callable[[type, str, int], Publisher]
) -> Gripper:
    """Return the gripper that `gripper_output` selects; `create_publisher` creates its publisher, if it has one."""
    if settings.gripper_output == "none":
        return NoGripper()
    publisher = create_publisher(Float64, "gripper_cmd", 10)
    return GripperTopic(publisher) if settings.gripper_output == "width" else GripperAction(node, publisher, settings)
