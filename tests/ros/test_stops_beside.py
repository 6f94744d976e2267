"""Stops by `m2distill instruct --stop` beside a recorder, a second moving robot and busy cores, over real DDS.

M2DISTILL_STOPS=1000 for many, 3 otherwise. Each stop is a new process, so it discovers all nodes again.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
from harness import KNOWN, STOP_MS, Client, policy_node
from recorder_client import Recorder, recorder_node

from m2distill_policy.bringup.processes import NodeProcesses, environment
from m2distill_policy.ros.common.conversions import stamp_to_ns, twist_to_numpy

STOPS = int(os.environ.get("M2DISTILL_STOPS", "3"))


def busy() -> None:
    os.nice(10)
    while True:
        pass


def last_motion_ns(robot: Client) -> int:
    twists = [twist for twist in robot.of("twist_cmd") if np.any(twist_to_numpy(twist))]
    return stamp_to_ns(twists[-1].header.stamp) if twists else 0


def one_stop(robots: list[Client]) -> tuple[int, str, list[float]]:
    """Move both robots and stop them; return exit status, output, and ms from the state IDLE to the last motion."""
    for robot in robots:
        robot.received = robot.received[-1:]
        robot.result(robot.command_to("INSTRUCT", KNOWN[0]), "the answer")
    for robot in robots:
        robot.wait(lambda r=robot: last_motion_ns(r), "motion")
        robot.received = [(name, m) for name, m in robot.received if name != "policy/status"]
    command = [sys.executable, "-m", "m2distill_policy.ros.clients.instruct", "--stop"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment(), text=True
    )
    robots[0].wait(lambda: process.poll() is not None, "the stop", 60.0)
    ended_ns = robots[0].get_clock().now().nanoseconds
    out, error = process.communicate()
    until_s = time.monotonic() + 0.3
    robots[0].wait(lambda: time.monotonic() > until_s, "commands after the end of the client")
    if process.returncode == 0:
        for robot in robots:
            assert last_motion_ns(robot) < ended_ns, f"the client claimed a stop, and {robot.get_namespace()} moved"
    late_ms = []
    for robot in robots:
        idle = next((m for m in robot.of("policy/status") if m.state == m.IDLE), None)
        if idle is not None:
            late_ms.append(max(last_motion_ns(robot) - stamp_to_ns(idle.stamp), 0) / 1e6)
    return process.returncode, out + error, late_ms


def test_a_claimed_stop_is_a_stop_of_every_robot(client, checkpoint_path, tmp_path):
    other = Client("second", client.spinner)
    robots = [client, other]
    first = policy_node(checkpoint_path, autostart=True)
    nodes = [first, recorder_node(checkpoint_path, tmp_path / "episodes")]
    load = [multiprocessing.Process(target=busy, daemon=True) for _ in range(2)]
    try:
        second = NodeProcesses([replace(first, namespace="second")], tmp_path / "second_log")
        with NodeProcesses(nodes, tmp_path / "log") as running, second:
            recorder = Recorder(client)
            for robot in robots:
                robot.wait_until_active()
                robot.sensors.reset()
            recorder.wait_until_up()
            for process in load:
                process.start()
            late_ms, failures = [], []
            for number in range(STOPS):
                if number % 50 == 0:
                    assert recorder("start").success
                status, output, times_ms = one_stop(robots)
                late_ms += times_ms
                if status:
                    failures.append(output)
                    assert "NOT stopped" in output or "no policy node found" in output, output
                else:
                    assert output == "stopped: /policy\nstopped: /second/policy\n"
                if number % 50 == 49 or number == STOPS - 1:
                    assert recorder("discard").success
                    print(
                        f"{number + 1} stops, {len(failures)} failed aloud; ms of motion after the state IDLE: "
                        f"p99 {np.percentile(late_ms, 99):.0f}, most {max(late_ms):.0f}",
                        flush=True,
                    )
            running.check(), second.check()
    finally:
        for process in load:
            process.kill()
        other.destroy_node()
    assert len(failures) <= STOPS // 20, failures[:3]
    assert max(late_ms) <= STOP_MS
