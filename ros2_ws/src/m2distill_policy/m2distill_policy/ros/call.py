"""Calls a service (std_srvs/Trigger) of a running node; the command is in m2distill_policy/clients.py."""

import sys
from collections.abc import Sequence

import rclpy
from rcl_interfaces.msg import Parameter
from rclpy.parameter import get_parameter_value
from rclpy.parameter_client import AsyncParameterClient
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from m2distill_policy.clients import call_arguments
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.ros.process import run_client
from m2distill_policy.ros.waiting import WaitingNode

FIND_TIMEOUT_S = 15.0  # for the service to be seen
LOOK_AROUND_S = 3.0  # for all nodes to be seen: nothing says which is the last
MEET_S = 0.5  # a node that does not know of a client yet cannot answer it
TRIGGER = "std_srvs/srv/Trigger"


class Caller(WaitingNode):
    def __init__(self, namespace: str):
        super().__init__("caller", namespace)

    def offered(self) -> list[str]:
        """The services that can be called now, by their names within the namespace."""
        inside = f"{self.get_namespace().rstrip('/')}/"
        return sorted(name.removeprefix(inside) for name, types in self.get_service_names_and_types()
                      if TRIGGER in types and name.startswith(inside))

    def call(self, service: str, settings: Sequence[tuple[str, str]]) -> str:
        """Set parameters of the service's node, call it, and return what it answers. Raises UserError."""
        client = self.create_client(Trigger, service)
        try:
            self.wait(client.service_is_ready, "the service", FIND_TIMEOUT_S)
        except UserError:
            raise UserError(f"{unknown_name('service', service, self.offered())}; m2distill run starts the nodes, in "
                            "the same ROS_DOMAIN_ID, and --namespace names theirs") from None
        if settings:
            self._set(service.rpartition("/")[0], settings)
        self.run(MEET_S)
        answer = self.ask(client)
        if not answer.success:
            raise UserError(f"{service} refused: {answer.message}")
        return answer.message

    def _set(self, node: str, settings: Sequence[tuple[str, str]]) -> None:
        parameters = AsyncParameterClient(self, node)
        self.wait(parameters.services_are_ready, f"the parameters of {node}", FIND_TIMEOUT_S)
        chosen = [Parameter(name=name, value=get_parameter_value(value)) for name, value in settings]
        answer = parameters.set_parameters(chosen)
        self.wait(answer.done, f"the parameters of {node}")
        for (name, value), result in zip(settings, answer.result().results, strict=True):
            if not result.successful:
                raise UserError(f"{node} refused {name}={value}: {result.reason}")


def call(caller: Caller, service: str, settings: Sequence[tuple[str, str]]) -> None:
    if service:
        print(caller.call(service, settings) or "done")
        return
    caller.run(LOOK_AROUND_S)
    print(*(caller.offered() or ["no node was seen; m2distill run starts some"]), sep="\n")


def main() -> int:
    try:
        options = call_arguments(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    except UserError as error:
        print(f"m2distill: {error}", file=sys.stderr)
        return 2
    return run_client(lambda: Caller(options.namespace), lambda caller: call(caller, options.service, options.set),
                      complaint="m2distill", signals=SignalHandlerOptions.NO)


if __name__ == "__main__":
    sys.exit(main())
