"""What the node says of itself: ~/status when it changes, ~/action for every sample, /diagnostics once a second."""

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSDurabilityPolicy, QoSProfile

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.action import Command
from m2distill_policy.ros import messages
from m2distill_policy.ros.diagnostics import InputMonitor, diagnostics
from m2distill_policy.ros.made import Made

LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
DIAGNOSTICS_PERIOD_S = 1.0


class Report:
    def __init__(self, made: Made, frame_id: str, known_instructions: list[str], checkpoint_id: str):
        self._node, self._frame_id = made.node, frame_id
        self._action_pub = made.publisher(PolicyAction, "~/action", 10)
        self._status_pub = made.publisher(PolicyStatus, "~/status", LATCHED)
        self._diagnostics_pub = made.publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = PolicyStatus(known_instructions=known_instructions, checkpoint_id=checkpoint_id)

    def action(self, command: Command, instruction: str) -> None:
        sample = command.sample
        action = PolicyAction(action=sample.action, mode=sample.mode, log_prob=sample.log_prob, entropy=sample.entropy,
                              instruction=instruction, checkpoint_id=self._status.checkpoint_id)
        action.header.stamp = messages.stamp_from_ns(command.stamp_ns)
        action.header.frame_id = self._frame_id
        self._action_pub.publish(action)

    def status(self, state: int, reason: str, instruction: str) -> None:
        """Tell it when something has changed."""
        status = self._status
        if (state, reason, instruction) != (status.state, status.reason, status.instruction):
            status.state, status.reason, status.instruction = state, reason, instruction
            status.stamp = self._node.get_clock().now().to_msg()
            self._status_pub.publish(status)
            self._node.get_logger().info(f"{instruction!r}: {reason or 'running'}")

    def diagnose(self, monitor: InputMonitor) -> None:
        self._diagnostics_pub.publish(diagnostics(
            self._node.get_fully_qualified_name(), self._status, monitor.report(DIAGNOSTICS_PERIOD_S),
            self._node.get_clock().now().to_msg()))
