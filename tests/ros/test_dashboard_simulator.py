"""Reset of the real simulator by the dashboard's node, and what the page shows of it."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from browser import wait_for
from rclpy.executors import SingleThreadedExecutor

from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses
from m2distill_policy.errors import UserError
from m2distill_policy.ros.nodes.dashboard_node import DashboardNode
from m2distill_sim.suites import find_task

SUITE, START_S = "libero_object", 90.0


@pytest.fixture(scope="module")
def dashboard(ros, tmp_path_factory) -> Iterator[DashboardNode]:
    """The dashboard's node without a web server, beside a simulator."""
    sim = {"suite": SUITE, "assets": "builtin", "image_size_px": 16, "pacing": "lockstep", "use_sim_time": False}
    node, spinner, ended = DashboardNode(), SingleThreadedExecutor(), threading.Event()
    spinner.add_node(node)

    def spin() -> None:
        while not ended.is_set():
            spinner.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    description = NodeDescription("m2distill_sim", "sim_node", "sim", "", sim)
    with NodeProcesses([description], tmp_path_factory.mktemp("sim")) as nodes:
        wait_for(lambda: node._simulator.section["settings"], lambda: "the simulator", START_S)
        yield node
        nodes.check()
    ended.set()
    thread.join()
    node.close()
    node.destroy_node()


def order(node: DashboardNode, name: str, text: str) -> str:
    return asyncio.run(node._order(name, text))


def test_a_reset_from_the_page_changes_task_state_and_driver_and_is_shown(dashboard):
    shown = dashboard._simulator.section
    assert shown["present"] and shown["settings"]["task"] == 0 and shown["operators"] == []
    assert shown["task"] == find_task(SUITE, 0).instruction
    text = "task=2 initial_state=3 seed=4 driver=expert disturbed=true"
    assert order(dashboard, "reset_sim", text) == find_task(SUITE, 2).instruction
    wait_for(lambda: dashboard._simulator.section["operator_active"], lambda: "the expert")
    wait_for(lambda: dashboard._simulator.section["settings"]["task"] == 2, lambda: "the settings")
    shown = dashboard._simulator.section
    assert shown["settings"] == {
        "suite": SUITE,
        "task": 2,
        "initial_state": 3,
        "seed": 4,
        "driver": "expert",
        "disturbed": True,
    }
    assert shown["task"] == find_task(SUITE, 2).instruction
    order(dashboard, "reset_sim", "driver=none disturbed=false")
    wait_for(lambda: not dashboard._simulator.section["operator_active"], lambda: "the release")


@pytest.mark.parametrize(
    ("text", "wording"),
    [
        ("video=/etc/passwd", "'video' cannot be set here, allowed: suite, task"),
        ("step_limit=1", "'step_limit' cannot be set here"),
        ("task=two", "task is 'two', expected a whole number"),
        ("disturbed=1", "disturbed is '1', expected true or false"),
        ("task=-1", "sim rejected task=-1: "),
        ("driver=cat", "sim rejected driver=cat: "),
        ("task=11", "libero_object has no task 11"),
    ],
)
def test_another_setting_than_those_of_the_page_is_rejected(dashboard, text, wording):
    with pytest.raises(UserError, match=wording):
        order(dashboard, "reset_sim", text)
    order(dashboard, "reset_sim", "task=0")


def test_a_recording_that_cannot_start_is_reported_after_the_reset(dashboard):
    with pytest.raises(UserError, match="recorder/start: no node offers it; start the node"):
        order(dashboard, "reset_record", "task=1")
