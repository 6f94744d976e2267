"""The life of a node's process: start, spin, and an end on SIGINT, SIGTERM or the death of its starter.

rclpy's own signal handlers close the context at once, after which a node can no longer send its last command. Here a
signal only ends the spinning; the node closes itself while it can still publish.
"""

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from m2distill_policy.bringup import die_with_starter
from m2distill_policy.errors import UserError

WAKE_PERIOD_S = 0.1  # how long a signal may go unnoticed when no message arrives


class ClosableNode(Protocol):
    def close(self) -> None: ...
    def destroy_node(self) -> None: ...


class StartableNode(Protocol):
    problem: str  # why the last transition failed

    def get_parameter(self, name: str) -> Any: ...
    def trigger_configure(self) -> TransitionCallbackReturn: ...
    def trigger_activate(self) -> TransitionCallbackReturn: ...


Startable = TypeVar("Startable", bound=StartableNode)
Client = TypeVar("Client", bound=Node)


def autostarted(node: Startable) -> Startable:
    """The lifecycle node, configured and activated if its parameter `autostart` says so. Raises UserError."""
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() != success or node.trigger_activate() != success:
            raise UserError(node.problem or "the node could not start; the lines above say why")
    return node


def run_node(make_node: Callable[[], ClosableNode]) -> int:
    """Run one node until a signal; returns the exit status: 2 after an error that the user can mend."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    die_with_starter()
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    node = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(cast(Node, node))  # no type says: a node that can be closed
        while not stop.is_set():
            executor.spin_once(timeout_sec=WAKE_PERIOD_S)
        return 0
    except (UserError, ParameterException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()


def run_client(make_node: Callable[[], Client], use: Callable[[Client], object], complaint: str = "error",
               signals: SignalHandlerOptions = SignalHandlerOptions.ALL) -> int:
    """Let a node that asks others do its work; returns the exit status: 2 after an error that the user can mend, which
    is told after the word `complaint`, 130 when interrupted."""
    rclpy.init(signal_handler_options=signals)
    node = make_node()
    try:
        use(node)
    except UserError as error:
        print(f"{complaint}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
