"""A simulator that is reset during a run: its stamps leap, and the policy starts again with an empty history."""

import numpy as np
import pytest
from harness import Client, policy_node, run
from rosgraph_msgs.msg import Clock

from m2distill_policy.bringup.processes import NodeProcesses
from m2distill_policy.ros.common.conversions import stamp_from_ns, stamp_to_ns, twist_to_numpy

FADE_S = 2.0  # commands grow from zero to full size in this time after a start with an empty history


@pytest.fixture
def robot(client, checkpoint_path, tmp_path):
    """Client whose clock and sensors are `client.ahead_ns` ahead of the wall clock."""
    clock_pub = client.create_publisher(Clock, "/clock", 1)
    client.ahead_ns = 0

    def sense() -> None:
        now_ns = client.get_clock().now().nanoseconds + client.ahead_ns
        clock_pub.publish(Clock(clock=stamp_from_ns(now_ns)))
        client.sense(now_ns)

    client.sensors.callback = sense
    parameters = {"arm": "unknown", "sampling": "mode", "autostart": True, "use_sim_time": True, "fade_in_s": FADE_S}
    with NodeProcesses([policy_node(checkpoint_path, **parameters)], tmp_path) as nodes:
        client.wait_until_active()
        client.sensors.reset()
        yield client
        nodes.check()


def speeds(robot: Client) -> list[tuple[float, float]]:
    """Return the stamp in s and the speed of each command that moves the arm."""
    twists = [(stamp_to_ns(t.header.stamp) / 1e9, np.linalg.norm(twist_to_numpy(t)[0])) for t in robot.of("twist_cmd")]
    return [(stamp_s, float(speed)) for stamp_s, speed in twists if speed > 0]


def test_after_a_leap_of_the_stamps_the_policy_starts_again_from_rest(robot):
    run(robot)
    for leap_s in (1.0, -5.0, 0.2, 1.0, -0.3):
        robot.received.clear()
        robot.wait(lambda: len(speeds(robot)) > FADE_S * 20 + 10, "commands of full size")
        full = max(speed for _, speed in speeds(robot))  # a hold on a busy machine makes the last ones small
        robot.received.clear()
        now_s = (robot.get_clock().now().nanoseconds + robot.ahead_ns) / 1e9
        robot.ahead_ns += round(leap_s * 1e9)

        def after(since_s: float = now_s, leap_s: float = leap_s) -> list[tuple[float, float]]:
            """Return stamp and speed of the commands for observations after the leap."""
            return [pair for pair in speeds(robot) if (pair[0] > since_s + leap_s / 2) == (leap_s > 0)]

        stamp_s, first = robot.wait(after, "a command after the leap")[0]
        share = 0.2 + (stamp_s - now_s - leap_s) / FADE_S  # a busy machine may miss the first observations
        assert share < 0.9, f"the first command is for an observation {stamp_s - now_s - leap_s} s after the leap"
        assert first < share * full, f"{first} m/s after a leap of {leap_s} s, before it {full} m/s"
