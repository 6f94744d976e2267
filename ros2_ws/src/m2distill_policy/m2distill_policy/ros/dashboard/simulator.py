"""The simulator and the operator, as the page shows them, and the reset of the simulator."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.task import Future
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from m2distill_policy.bringup.parameters import SimParameters
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common.conversions import LATCHED

REPEAT_S = 5.0  # after which a request for the parameters is repeated
LIMIT_S = 60.0  # of a reset, which may load another scene
ALLOWED = ("suite", "task", "initial_state", "seed", "driver", "disturbed")  # parameters that the page may set


class Simulator:
    """Subscriber of the simulator's topics and of the operator's, and client of its reset.

    Args:
        node: Node of the dashboard.
        answer: Coroutine that returns the response of a service, given its client, the request and a time limit.
    """

    def __init__(self, node: Node, answer: Callable[[Client, Any, float], Awaitable[Any]]):
        self._node, self._answer = node, answer
        self._task, self._success, self._operator = "", False, False
        self._settings: dict[str, Any] = {}  # of the present episode
        self._are_old = True  # an episode has begun since they were read
        self._read: Future | None = None  # their request
        self._requested_s = 0.0
        node.create_subscription(String, "sim/task", self._on_task, LATCHED)
        node.create_subscription(Bool, "sim/success", self._on_success, LATCHED)
        node.create_subscription(Bool, "operator_active", self._on_operator, 10)
        self._set = node.create_client(SetParameters, "sim/set_parameters")
        self._get = node.create_client(GetParameters, "sim/get_parameters")
        self._reset = node.create_client(Trigger, "sim/reset")

    def _on_task(self, message: String) -> None:
        self._task, self._are_old = message.data, True

    def refresh(self) -> None:
        """Read the simulator's parameters after the start of an episode; called regularly on the node's thread."""
        if self._read is not None and self._read.done():
            values = self._read.result().values
            if len(values) == len(ALLOWED):
                self._settings = dict(zip(ALLOWED, map(parameter_value_to_python, values), strict=True))
            self._read = None
        elif self._read is not None and time.monotonic() - self._requested_s > REPEAT_S:  # the simulator has ended
            self._get.remove_pending_request(self._read)
            self._read, self._are_old = None, True
        elif self._read is None and self._are_old and self._get.service_is_ready():
            self._read, self._are_old = self._get.call_async(GetParameters.Request(names=ALLOWED)), False
            self._requested_s = time.monotonic()

    def _on_success(self, message: Bool) -> None:
        self._success = message.data

    def _on_operator(self, message: Bool) -> None:
        self._operator = message.data

    @property
    def section(self) -> dict[str, Any]:
        """What the page shows: the simulated task, and who can move the arm beside the policy."""
        node = self._node
        own = node.get_namespace().rstrip("/") + "/sim"
        names = {f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in self._operators()}
        return {
            "present": bool(node.count_services(self._reset.srv_name)),
            "task": self._task,
            "settings": self._settings,
            "success": self._success,
            "operators": sorted(names - {own}),
            "operator_active": self._operator and bool(names),
        }

    def _operators(self) -> list:
        return self._node.get_publishers_info_by_topic("operator_active")

    async def reset(self, text: str) -> str:
        """Set parameters, written as `task=2 driver=expert`, and start an episode. Raises UserError."""
        chosen = [_parameter(word) for word in text.split()]
        if chosen:
            request = SetParameters.Request(parameters=[each.to_parameter_msg() for each in chosen])
            response = await self._answer(self._set, request, LIMIT_S)
            for parameter, result in zip(chosen, response.results, strict=True):
                if not result.successful:
                    raise UserError(f"sim rejected {parameter.name}={parameter.value}: {result.reason}")
        answer = await self._answer(self._reset, Trigger.Request(), LIMIT_S)
        if not answer.success:
            raise UserError(answer.message)
        return answer.message


def _parameter(word: str) -> Parameter:
    name, _, value = word.partition("=")
    declared = {field.name: field for field in fields(SimParameters)}
    if name not in ALLOWED:
        raise UserError(f"{name!r} cannot be set here, allowed: {', '.join(ALLOWED)}")
    kind: Any = type(declared[name].default)
    try:
        return Parameter(name, value={"true": True, "false": False}[value] if kind is bool else kind(value))
    except (KeyError, ValueError):
        expected = "true or false" if kind is bool else "a whole number"
        raise UserError(f"{name} is {value!r}, expected {expected}") from None
