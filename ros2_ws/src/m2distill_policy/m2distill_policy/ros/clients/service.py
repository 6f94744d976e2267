"""Calls services (std_srvs/Trigger) of running nodes; the command is in m2distill_policy/clients.py."""

import argparse
import sys
from collections.abc import Iterator, Sequence

import yaml
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rclpy.parameter import get_parameter_value
from rclpy.parameter_client import AsyncParameterClient
from std_srvs.srv import Trigger

from m2distill_policy.bringup.client_cli import service_arguments
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.ros.clients.client_node import ClientNode
from m2distill_policy.ros.common.process import run_command

FIND_TIMEOUT_S = 15.0  # for the service to be seen
LOOK_AROUND_S = 3.0  # for all nodes to be seen: nothing says which is the last
MEET_S = 0.5  # a node that does not know of a client yet cannot answer it
TRIGGER = "std_srvs/srv/Trigger"


class ServiceClient(ClientNode):
    def __init__(self, namespace: str):
        super().__init__("client", namespace)

    def offered(self) -> list[str]:
        """The services that can be called now, by their names within the namespace."""
        inside = f"{self.get_namespace().rstrip('/')}/"
        return sorted(
            name.removeprefix(inside)
            for name, types in self.get_service_names_and_types()
            if TRIGGER in types and name.startswith(inside)
        )

    def call(self, services: Sequence[str], settings: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Set parameters of the first service's node, call the services in this order, and yield what each answers, as
        it does. Raises UserError at the first that is not there or refuses."""
        clients = [self.create_client(Trigger, service) for service in services]
        for service, client in zip(services, clients, strict=True):
            if not self.wait_until(client.service_is_ready, FIND_TIMEOUT_S):
                raise UserError(
                    f"{unknown_name('service', service, self.offered())}; m2distill run starts the nodes, "
                    "in the same ROS_DOMAIN_ID, and --namespace names theirs"
                )
        self.run(MEET_S)
        if settings:
            self._set(services[0].rpartition("/")[0], settings)
        for service, client in zip(services, clients, strict=True):
            answer = self.ask(client)
            if not answer.success:
                raise UserError(f"{service} refused: {answer.message}")
            yield answer.message

    def _set(self, node: str, settings: Sequence[tuple[str, str]]) -> None:
        parameters = AsyncParameterClient(self, node)
        self.wait(parameters.services_are_ready, f"the parameters of {node}", FIND_TIMEOUT_S)
        chosen = [Parameter(name=name, value=parameter_value(text)) for name, text in settings]
        answer = parameters.set_parameters(chosen)
        self.wait(answer.done, f"the parameters of {node}")
        for (name, value), result in zip(settings, answer.result().results, strict=True):
            if not result.successful:
                raise UserError(f"{node} refused {name}={value}: {result.reason}")


def parameter_value(text: str) -> ParameterValue:
    """What the text stands for in YAML, as in `ros2 param set`; where no parameter can hold that, the text itself."""
    try:
        value = get_parameter_value(text)
    except yaml.YAMLError:
        value = None
    if value is None or not isinstance(value.string_value, str):  # rclpy puts a date there
        return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
    return value


def call(client: ServiceClient, options: argparse.Namespace) -> None:
    for answer in client.call(options.services, options.set):
        print(answer or "done")
    if not options.services:
        client.run(LOOK_AROUND_S)
        print(*(client.offered() or ["no node was seen; m2distill run starts some"]), sep="\n")


def main() -> int:
    return run_command(service_arguments, ServiceClient, call)


if __name__ == "__main__":
    sys.exit(main())
