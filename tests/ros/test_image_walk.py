"""docs/dev/image_walk.md against a running node: the files that an image passes through on its way to a command."""

import array
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TwistStamped
from harness import CAMERAS, KNOWN
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState

import m2distill_policy
from m2distill_policy.action import ActionSample, Command
from m2distill_policy.observations.observation import Observation
from m2distill_policy.ros.common import conversions
from m2distill_policy.ros.nodes.policy_node import PolicyNode
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS

PAGE = Path(__file__).parents[2] / "docs/dev/image_walk.md"
PACKAGE = Path(m2distill_policy.__file__).parent
# An image, and what is computed from it on the way to a command.
CARRIERS = (Image, array.array, np.ndarray, Observation, torch.Tensor, ActionSample, Command, TwistStamped)
MAX_FILES, MAX_ENTRIES = 12, 2
ATTEMPTS = 20  # on a busy machine a step may be too late
PERIOD_NS = 50_000_000
POSITIONS = np.array([0.0, -0.5, 0.1, -2.0, 0.2, 1.5, 0.8, 0.04, 0.04])


class Recorder:
    """Profile function that records the calls of this package whose variables or result hold a carrier."""

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        self.recording = False
        self._calls: list[tuple[str, str]] = []
        self._holds: list[bool] = []
        self._open: dict[int, int] = {}  # frame -> index of its call

    def __call__(self, frame, event: str, result) -> None:
        path = Path(frame.f_code.co_filename)
        if not self.recording or event not in ("call", "return") or not path.is_relative_to(PACKAGE):
            return
        if event == "call":
            self._open[id(frame)] = len(self._calls)
            self._calls.append((str(path.relative_to(PACKAGE)), frame.f_code.co_name))
            self._holds.append(_holds_carrier(frame, None))
        elif id(frame) in self._open:
            self._holds[self._open.pop(id(frame))] |= _holds_carrier(frame, result)

    def stop(self) -> None:
        """Stop recording; calls that have not returned are judged by their present variables."""
        self.recording = False
        frame = sys._getframe()
        while frame is not None:
            if id(frame) in self._open:
                self._holds[self._open.pop(id(frame))] |= _holds_carrier(frame, None)
            frame = frame.f_back

    def walk(self) -> list[tuple[str, str]]:
        """Return (file, function) of each entry into a file; the network counts as part of its caller."""
        entries: list[tuple[str, str]] = []
        for call, holds in zip(self._calls, self._holds, strict=True):
            if holds and not call[0].startswith("models/") and (not entries or entries[-1][0] != call[0]):
                entries.append(call)
        return entries


def _holds_carrier(frame, result) -> bool:
    values = [value for name, value in frame.f_locals.items() if name != "self"]
    return any(isinstance(value, CARRIERS) for value in [*values, result])


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A recorder for this thread and for those that start from now on, such as the policy's."""
    recorder = Recorder()
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    yield recorder
    sys.setprofile(None)
    threading.setprofile(None)


def send_set(node: PolicyNode, stamp_ns: int, recorder: Recorder) -> None:
    """Send one set of inputs; record from the arrival of the last image on."""
    inputs = node._parts.inputs
    joints: JointState = conversions.joint_state_from_numpy([*PANDA_JOINTS, *PANDA_FINGERS], POSITIONS, stamp_ns)
    inputs._on_joints(joints, {"publication_sequence_number": None})
    first, last = (
        conversions.image_from_numpy(np.full((64, 64, 3), 100, np.uint8), stamp_ns, camera) for camera in CAMERAS
    )
    inputs._on_image(CAMERAS[0], first)
    recorder.recording = True
    inputs._on_image(CAMERAS[1], last)
    recorder.recording = False


@pytest.mark.parametrize("pacing", ["real_time", "lockstep"])
def test_an_image_passes_through_the_listed_files_on_its_way_to_a_command(
    pacing, ros, checkpoint_path, recorder, monkeypatch
):
    values = {"pacing": pacing, "arm": "libero_sim", "checkpoint": str(checkpoint_path)}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    overridden = partialmethod(LifecycleNode.__init__, parameter_overrides=overrides)
    monkeypatch.setattr(LifecycleNode, "__init__", overridden)  # both are read at startup
    node = PolicyNode()
    try:
        node.trigger_configure()
        node.trigger_activate()
        controller = node._parts.controller
        published = _stop_at_publication(controller.loop._outputs, recorder, monkeypatch)
        controller.instructions.request(KNOWN[0])
        stamp_ns = node.get_clock().now().nanoseconds
        send_set(node, stamp_ns, recorder)  # starts the policy's thread and sets its instruction
        for _ in range(ATTEMPTS):
            controller.loop.hold("the next set of inputs is acted on at once")
            published.clear()
            recorder.clear()
            stamp_ns = stamp_ns + PERIOD_NS if pacing == "lockstep" else node.get_clock().now().nanoseconds
            send_set(node, stamp_ns, recorder)
            if published and np.any(conversions.twist_to_numpy(published[0])):
                break
    finally:
        node.close()
        node.destroy_node()
    assert np.any(conversions.twist_to_numpy(published[0]))
    walk = recorder.walk()
    assert walk == re.findall(r"^\d+\. `(.+?)`: `(.+?)`", PAGE.read_text(), re.M)
    entries = Counter(file for file, _ in walk)
    assert len(entries) <= MAX_FILES and max(entries.values()) <= MAX_ENTRIES, entries


def _stop_at_publication(outputs, recorder: Recorder, monkeypatch) -> list[TwistStamped]:
    """Stop the recorder when the motion is published; return the published messages."""
    published: list[TwistStamped] = []
    publisher = outputs._pub

    class Publisher:
        def publish(self, message: TwistStamped) -> None:
            recorder.stop()
            published.append(message)
            publisher.publish(message)

        def wait_for_all_acked(self, limit) -> None:
            publisher.wait_for_all_acked(limit)

    monkeypatch.setattr(outputs, "_pub", Publisher())
    return published
