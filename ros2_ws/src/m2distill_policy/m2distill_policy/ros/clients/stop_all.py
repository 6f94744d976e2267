"""Stop every policy of the domain, or of one namespace, and verify that nothing moves afterwards.

Each policy that answers names the others that it has discovered. It has had more time than this client for that, so one
policy is enough to find the rest.
"""

import time
from functools import partial

from rclpy.exceptions import InvalidTopicNameException
from rclpy.subscription import Subscription
from rclpy.validate_full_topic_name import validate_full_topic_name

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode, CommandClient
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.topic_checks import DISCOVERY_S, policies

QUIET_S = 1.0  # without an action, a new policy or a moving status, after which all have stopped
LIMIT_S = 15.0
RETRY_S = 2.0  # time limit of one request
MOVING = (PolicyStatus.RUNNING, PolicyStatus.HOLDING)


class Stopper:
    """Client of all policies.

    Args:
        node: Node that spins itself.
        within: Namespace of the policies; empty: all of the domain.
    """

    def __init__(self, node: ClientNode, within: str):
        self._node, self._within = node, f"/{within}/" if within else "/"
        self._clients: dict[str, CommandClient] = {}  # by name of the policy node
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._to_stop: set[str] = set()
        self._changed_s = time.monotonic()

    def stop(self) -> list[str]:
        """Stop all policies and return their names. Raises UserError if one moves or does not answer."""
        deadline_s = time.monotonic() + LIMIT_S
        for name in self._clients:  # found by an earlier stop, or by `watch`
            self._on_change(name)
        problem = ""
        while time.monotonic() < deadline_s:
            for name in policies(self._node):
                self._add(name)
            for name in sorted(self._to_stop):
                problem = self._request(name)
            now_s = time.monotonic()
            complete = now_s - self._changed_s >= QUIET_S and now_s - self._node.created_s >= DISCOVERY_S
            if self._clients and not self._to_stop and complete:
                return sorted(self._clients)
            self._node.wait_until(lambda: self._to_stop, 0.1)
        if not self._clients:
            raise UserError(
                f"no policy node found within {LIMIT_S:.0f} s; nothing was stopped. Check ROS_DOMAIN_ID and --namespace"
            )
        names = ", ".join(sorted(self._to_stop or self._clients))
        raise UserError(f"NOT stopped: {names}; {problem or 'it still moves'}; use the arm's own stop")

    def watch(self) -> None:
        """Find policies and forget those that have ended, so that the next stop has its connections ready."""
        present = policies(self._node)
        for name in self._clients.keys() - set(present):
            self._node.destroy_client(self._clients.pop(name).client)
            for subscription in self._subscriptions.pop(name):
                self._node.destroy_subscription(subscription)
            self._to_stop.discard(name)
        for name in present:
            self._add(name)

    def _add(self, name: str) -> None:
        """Add a policy to those that must stop."""
        if name in self._clients or not name.startswith(self._within):
            return
        try:
            validate_full_topic_name(name)
        except InvalidTopicNameException:
            return  # no node has such a name, so the node that reported it is no policy of ours
        self._clients[name] = CommandClient(self._node, f"{name}/command")
        self._on_change(name)
        self._subscriptions[name] = [
            self._node.create_subscription(PolicyStatus, f"{name}/status", partial(self._on_status, name), LATCHED),
            self._node.create_subscription(PolicyAction, f"{name}/action", partial(self._on_action, name), 10),
        ]

    def _request(self, name: str) -> str:
        """Request a stop; return why it failed. An action that arrives later requests the next one."""
        client = self._clients[name]
        try:
            answer = client.send(Command.Request.STOP, limit_s=RETRY_S)
        except UserError as error:
            return str(error)
        if answer.accepted:
            self._to_stop.discard(name)
        for other in answer.policies:
            self._add(other)
        return "" if answer.accepted else answer.message

    def _on_status(self, name: str, status: PolicyStatus) -> None:
        if status.state in MOVING:
            self._on_change(name)

    def _on_action(self, name: str, _: PolicyAction) -> None:
        self._on_change(name)

    def _on_change(self, name: str) -> None:
        self._to_stop.add(name)
        self._changed_s = time.monotonic()
