"""Commands to the gripper, as an opening in m: on a topic, or to a control_msgs/GripperCommand action server.

Every ROS 2 distribution has control_msgs, but the PyPI wheels do not; only this module imports it.
"""

from rclpy.task import Future
from std_msgs.msg import Float64

from m2distill_policy.errors import UserError
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.safety.output_parameters import OutputParameters

try:
    from control_msgs.action import GripperCommand
except ImportError:
    GripperCommand = None


class GripperTopic:
    """Gripper that subscribes to `gripper_cmd`."""

    def __init__(self, entities: ManagedEntities):
        self._pub = entities.publisher(Float64, "gripper_cmd", 10)

    def send(self, width_m: float) -> None:
        self._pub.publish(Float64(data=width_m))

    def clear(self) -> None:
        """Do nothing: every command is published."""


class GripperAction:
    """Gripper with an action server.

    A goal is sent only if the opening differs enough from the last one, because each goal restarts the server's motion.
    """

    def __init__(self, entities: ManagedEntities, settings: OutputParameters):
        if GripperCommand is None:
            raise UserError(
                "gripper_output is action, but control_msgs is not installed; install "
                "ros-$ROS_DISTRO-control-msgs, or set gripper_output to width"
            )
        from rclpy.action import ActionClient

        self._settings = settings
        self._client = ActionClient(entities.node, GripperCommand, "gripper_action")
        entities.at_destruction(self._client.destroy)
        self._sent_m: float | None = None

    def send(self, width_m: float) -> None:
        settings = self._settings
        if not self._client.server_is_ready():
            self.clear()  # the first command after it has started is sent
            return
        sent_m = self._sent_m  # read once: the watchdog's thread may clear it
        if sent_m is not None and abs(width_m - sent_m) < settings.gripper_min_change_m:
            return
        goal = GripperCommand.Goal()
        goal.command.position = settings.gripper_action_offset + settings.gripper_action_scale * width_m
        goal.command.max_effort = settings.gripper_effort_n
        self._sent_m = width_m
        self._client.send_goal_async(goal).add_done_callback(self._answered)

    def _answered(self, answer: Future) -> None:
        if not answer.result().accepted:
            self.clear()

    def clear(self) -> None:
        """Send the next command in any case, because others may move the gripper meanwhile."""
        self._sent_m = None


def make_gripper(entities: ManagedEntities, settings: OutputParameters) -> GripperTopic | GripperAction:
    """Return the gripper that `gripper_output` selects."""
    return GripperAction(entities, settings) if settings.gripper_output == "action" else GripperTopic(entities)
