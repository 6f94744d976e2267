"""ROS client of `m2distill service`: it calls services (std_srvs/Trigger) of running nodes."""

import argparse
import sys
import time
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
from m2distill_policy.ros.common.topic_checks import DISCOVERY_S

FIND_TIMEOUT_S = 15.0  # until the service is discovered
LIST_TIMEOUT_S = 10.0  # until any service is discovered
MATCH_S = 0.5  # until the nodes have discovered the client, whose response would be lost before
TRIGGER = "std_srvs/srv/Trigger"


class ServiceClient(ClientNode):
    """Caller of services by their names within a namespace."""

    def __init__(self, namespace: str):
        super().__init__("client", namespace)

    def available(self) -> list[str]:
        """Return the services that can be called now, by their names within the namespace."""
        inside = f"{self.get_namespace().rstrip('/')}/"
        return sorted(
            name.removeprefix(inside)
            for name, types in self.get_service_names_and_types()
            if TRIGGER in types and name.startswith(inside) and self.count_services(name)
        )

    def call(self, services: Sequence[str], settings: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Set parameters of the first service's node, call the services in this order, and yield each response.

        Raises:
            UserError: A service is missing or fails, or a parameter is rejected.
        """
        clients = [self.create_client(Trigger, service) for service in services]
        for service, client in zip(services, clients, strict=True):
            if not self.wait_until(client.service_is_ready, FIND_TIMEOUT_S):
                raise UserError(self._missing(service))
        self.run(MATCH_S)
        for service in services:
            self.one_server(service)
        if settings:
            self._set(services[0].rpartition("/")[0], settings)
        for service, client in zip(services, clients, strict=True):
            answer = self.call_trigger(client)
            if not answer.success:
                raise UserError(f"{service} failed: {answer.message}")
            yield answer.message

    def _missing(self, service: str) -> str:
        """Return the message for a service that was not found."""
        available = self.available()
        found = unknown_name("service", service, available) if available else f"no service {service!r}, and no other"
        where = "in the same ROS_DOMAIN_ID, and --namespace selects their namespace"
        return f"{found}; m2distill run starts the nodes, {where}"

    def _set(self, node: str, settings: Sequence[tuple[str, str]]) -> None:
        parameters = AsyncParameterClient(self, node)
        self.wait(parameters.services_are_ready, f"the parameters of {node}", FIND_TIMEOUT_S)
        chosen = [Parameter(name=name, value=parameter_value(text)) for name, text in settings]
        answer = parameters.set_parameters(chosen)
        self.wait(answer.done, f"the parameters of {node}")
        for (name, value), result in zip(settings, answer.result().results, strict=True):
            if not result.successful:
                raise UserError(f"{node} rejected {name}={value}: {result.reason}")


def parameter_value(text: str) -> ParameterValue:
    """Return the value of a YAML text, as `ros2 param set` does; the text itself if no parameter can hold it."""
    try:
        value = get_parameter_value(text)
    except yaml.YAMLError:
        value = None
    if value is None or not isinstance(value.string_value, str):  # rclpy returns a date there
        return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)
    return value


def call(client: ServiceClient, options: argparse.Namespace) -> None:
    """Call the services and print their responses, or print the available services."""
    for answer in client.call(options.services, options.set):
        print(answer or "done")
    if not options.services:
        begun_s = time.monotonic()
        client.wait_until(client.available, LIST_TIMEOUT_S)  # on a busy computer the first one takes longer
        client.run(begun_s + DISCOVERY_S - time.monotonic())
        print(*(client.available() or ["no node found; start the nodes with m2distill run"]), sep="\n")


def main() -> int:
    """Run the client; return the exit status."""
    return run_command(service_arguments, ServiceClient, call)


if __name__ == "__main__":
    sys.exit(main())
