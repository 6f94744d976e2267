"""Publishers of ~/status, ~/action and /diagnostics."""

from collections.abc import Callable, Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.action import Command
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.common.diagnostics import diagnostics
from m2distill_policy.ros.common.managed_entities import ManagedEntities


class StatusPublisher:
    """Publishes ~/status and /diagnostics when the status changes, and ~/action for every sample.

    `diagnostic_values` returns what /diagnostics contains besides the status, by name.
    """

    def __init__(self, entities: ManagedEntities, frame_id: str):
        self._node, self._frame_id = entities.node, frame_id
        self._action_pub = entities.publisher(PolicyAction, "~/action", 10)
        self._status_pub = entities.publisher(PolicyStatus, "~/status", conversions.LATCHED)
        self._diagnostics_pub = entities.publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = PolicyStatus()
        self.diagnostic_values: Callable[[], Mapping[str, str]] = dict

    def action(self, command: Command, instruction: str, input_stamps_ns: Sequence[int]) -> None:
        """Publish the sample from which `command` was made."""
        sample = command.sample
        action = PolicyAction(
            action=sample.action,
            mode=sample.mode,
            weights=sample.weights,
            log_prob=sample.log_prob,
            entropy=sample.entropy,
            limited_by=command.limited_by,
            instruction=instruction,
            checkpoint_id=self._status.checkpoint_id,
            input_stamps=[conversions.stamp_from_ns(stamp_ns) for stamp_ns in input_stamps_ns],
        )
        action.header.stamp = conversions.stamp_from_ns(command.stamp_ns)
        action.header.frame_id = self._frame_id
        self._action_pub.publish(action)

    def status(self, **changes) -> None:
        """Set fields of PolicyStatus and publish the whole status if one has changed."""
        status = self._status
        if all(getattr(status, name) == value for name, value in changes.items()):
            return
        for name, value in changes.items():
            setattr(status, name, value)
        if not self._status_pub.is_activated:
            return  # the activation publishes it
        status.stamp = self._node.get_clock().now().to_msg()
        self._status_pub.publish(status)
        self.diagnose()
        self._node.get_logger().info(f"{status.instruction!r}: {changes.get('notice') or status.reason or 'running'}")

    def diagnose(self) -> None:
        """Publish /diagnostics."""
        self._diagnostics_pub.publish(
            diagnostics(
                self._node.get_fully_qualified_name(),
                self._status,
                self.diagnostic_values(),
                self._node.get_clock().now().to_msg(),
            )
        )
