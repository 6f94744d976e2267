"""Description of the recorder for tests, and a client of its services."""

import time
from collections.abc import Callable
from pathlib import Path

from geometry_msgs.msg import TwistStamped
from harness import START_LIMIT_S, Client
from rclpy.parameter_client import AsyncParameterClient
from std_msgs.msg import Float64, Header, String
from std_srvs.srv import Trigger

from m2distill_policy.bringup.processes import NodeDescription

VERBS = ("start", "keep", "discard", "success", "failure")


def recorder_node(checkpoint: Path, directory: Path, **parameters) -> NodeDescription:
    parameters = {
        "checkpoint": str(checkpoint),
        "directory": str(directory),
        "operator": "Ada",
        "min_free_mib": 10,
        "autostart": True,
        **parameters,
    }
    return NodeDescription("m2distill_policy", "recorder_node", "recorder", "", parameters)


class Recorder:
    """Client of the recorder's services and of its topic."""

    def __init__(self, client: Client):
        self.client = client
        self.services = {verb: client.create_client(Trigger, f"recorder/{verb}") for verb in VERBS}
        self.command_pub = client.create_publisher(String, "recorder/command", 10)
        self.parameters = AsyncParameterClient(client, "recorder")
        self.drivers: list = []  # publishers of commands

    def wait_until_up(self) -> None:
        client = self.client
        client.wait(
            lambda: all(s.service_is_ready() for s in self.services.values()) and self.diagnostics_of(),
            "an active recorder",
            START_LIMIT_S,
        )
        publishers = (client.instruction_pub, self.command_pub, *client.sensor_pubs)
        client.wait(lambda: all(pub.get_subscription_count() for pub in publishers), "its subscriptions")

    def __call__(self, verb: str) -> Trigger.Response:
        return self.client.result(self.services[verb].call_async(Trigger.Request()), verb)

    def command(self, command: str, happened: Callable[[], object]) -> object:
        """Send a command on the topic until it has an effect; a recorder that has not started does not receive it."""
        sent, begun_s = 0, time.monotonic()

        def ask() -> object:
            nonlocal sent
            if time.monotonic() - begun_s >= sent:
                sent += 1
                self.command_pub.publish(String(data=command))
            return happened()

        return self.client.wait(ask, command, START_LIMIT_S)

    def change(self, transition: int) -> bool:
        return self.client.transition(transition, "recorder")

    def diagnostics_of(self) -> list[str]:
        return [
            array.status[0].message
            for array in self.client.of("/diagnostics")
            if array.status[0].name == "/recorder: recorder"
        ]

    def numbers(self, key: str, missing: int | None = None) -> int:
        """Return a number of the last diagnostics, or `missing` if they have none of that name."""
        array = next(
            array for array in reversed(self.client.of("/diagnostics")) if array.status[0].name == "/recorder: recorder"
        )
        values = {value.key: value.value for value in array.status[0].values}
        return missing if missing is not None and key not in values else int(values[key])

    def record(self, sets: int, commands: bool = True) -> None:
        """Publish so many sets of sensor data, and commands as of an operator who moves the arm."""
        client = self.client
        if commands and not self.drivers:
            self.drivers = [client.create_publisher(TwistStamped, "twist_cmd", 10)]
            self.drivers += [client.create_publisher(Float64, "gripper_cmd", 10)]
            client.wait(lambda: all(pub.get_subscription_count() >= 2 for pub in self.drivers), "the recorder")
        client.sensors.reset()
        sent = last = client.sent

        def drive() -> bool:
            nonlocal last
            if commands and client.sent > last:
                last = client.sent
                twist = TwistStamped(header=Header(stamp=client.get_clock().now().to_msg(), frame_id="panda_link0"))
                twist.twist.linear.x = 0.1
                self.drivers[0].publish(twist)
                self.drivers[1].publish(Float64(data=0.08))
            return client.sent >= sent + sets

        client.wait(drive, "sensor data")
        client.sensors.cancel()
