"""Fixtures of the tests with real ROS 2: a domain of their own, a tiny checkpoint, and a client of the policy node."""

import gc
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import pytest

from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.processes import NodeProcesses, environment

sys.path.insert(0, str(Path(__file__).parent))  # for harness.py

os.environ.update(  # before rclpy starts; the domain is reserved until this test process ends
    environment()
    | (DOMAIN := own_domain()).__enter__()
    | {"ROS_LOG_DIR": tempfile.mkdtemp(prefix="m2distill-ros-log-")}
)

try:
    import rclpy
    import tf2_msgs.msg  # noqa: F401

    import m2distill_interfaces.msg  # noqa: F401
except ImportError as error:
    raise pytest.UsageError(
        f"tests/ros needs ROS 2 and the built messages ({error}): run `make setup`; on a ROS 2 "
        "distribution source it and ros2_ws/install/setup.bash"
    ) from error

import torch
from harness import KNOWN, Client
from rclpy.node import Node

from m2distill_policy.checkpoint import Checkpoint, save_checkpoint
from m2distill_policy.models import Policy, small
from m2distill_policy.spec import libero_spec

LOG_CHARACTERS = 3000  # of each node in the report of a failed test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, pytest.TestReport, object]:
    """Add the ends of the nodes' logs to the report of a failed test."""
    report = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        logs = {log for value in values if isinstance(value, NodeProcesses) for log in value.log_dir.glob("*.log")}
        logs |= {log for value in values if isinstance(value, Path) for log in value.glob("*.log")}
        report.sections += [(str(log), log.read_text(errors="replace")[-LOG_CHARACTERS:]) for log in sorted(logs)]
    return report


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory) -> Path:
    """An untrained policy for 64 px that knows two instructions, by embeddings of 8 numbers."""
    torch.manual_seed(0)
    spec = libero_spec(64, text_encoder="none", text_width=8)
    instructions = {text: np.full(8, sign, np.float32) for text, sign in zip(KNOWN, (1.0, -1.0), strict=True)}
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(path, Checkpoint(spec, small(), Policy(small(), spec).state_dict(), instructions))
    return path


@pytest.fixture(scope="session")
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def client(ros) -> Iterator[Client]:
    gc.collect()  # until the previous test's client is deleted, the graph has its publishers
    client = Client()
    client.wait(client.is_the_only_one, "the previous test's client to leave the graph")
    yield client
    client.destroy_node()


@pytest.fixture
def make_node(ros) -> Iterator[Callable[[type[Node]], Node]]:
    """Function that creates nodes in this process."""
    nodes = []

    def make(kind: type[Node]) -> Node:
        nodes.append(kind())
        return nodes[-1]

    yield make
    while nodes:
        node = nodes.pop()
        node.close()
        node.destroy_node()
        del node
    gc.collect()  # until it is deleted, the graph has two nodes of this name and may return either
