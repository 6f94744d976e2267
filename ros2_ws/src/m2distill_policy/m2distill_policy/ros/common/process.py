"""The life of a node's process: start, spin, and an end on a signal, a hangup or the death of its starter.

rclpy's own signal handlers close the context at once, after which a node can no longer send its last command. Here a
signal only ends the spinning; the node closes itself while it can still publish.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor, await_or_execute
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from m2distill_policy.bringup.system import die_with_starter
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import parameters

WAKE_PERIOD_S = 0.1  # how long a signal may go unnoticed when no message arrives
FOREIGN = {"rclpy", *sys.stdlib_module_names}
COMPLAINT_PERIOD_S = 60.0  # a peer who repeats himself is not to fill the disk


class ClosableNode(Protocol):
    def close(self) -> None: ...
    def destroy_node(self) -> None: ...


class StartableNode(Protocol):
    problem: str  # why the last transition failed

    def get_parameter(self, name: str) -> Any: ...
    def trigger_configure(self) -> TransitionCallbackReturn: ...
    def trigger_activate(self) -> TransitionCallbackReturn: ...


Client = TypeVar("Client", bound=Node)


def _autostart(node: StartableNode) -> None:
    """Configure and activate the lifecycle node if its parameter `autostart` says so. Raises UserError."""
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() != success or node.trigger_activate() != success:
            raise UserError(node.problem or "the node could not start; the lines above say why")


def run_node(make_node: Callable[[], ClosableNode], lifecycle: bool = False) -> int:
    """Run one node until a signal; returns the exit status: 2 after an error that the user can mend. One with a
    lifecycle has the parameter `autostart`, which is followed.

    What rclpy's own services and subscriptions cannot make sense of (a transition that does not fit the state, a
    parameter of no known type, a clock before its beginning) is logged, and the node goes on. What a callback of ours
    raises ends it, with the zero command on the way out: nothing shows that it could go on to move an arm.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda *_: stop.set())
    die_with_starter()
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rcl's: a parameter file that cannot be read, say
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    node = None
    try:
        node = make_node()
        parameters.refuse_unknown(cast(Node, node))
        if lifecycle:
            _autostart(cast(StartableNode, node))
        executor = SingleThreadedExecutor()
        executor.add_node(cast(Node, node))  # no type says: a node that can be closed
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=WAKE_PERIOD_S)
            except Exception as error:
                if not _is_rclpys(error):
                    raise
                cast(Node, node).get_logger().error(
                    f"passed over what a peer sent: {traceback.format_exc()}", throttle_duration_sec=COMPLAINT_PERIOD_S
                )
        return 0
    except (UserError, ParameterException) as error:
        with contextlib.suppress(OSError):  # the terminal has gone
            print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()


def _is_rclpys(error: Exception) -> bool:
    """Raised by a callback of rclpy's while no code but its own and Python's was under way. The executor is whole after
    that: it has taken the message, and goes on to the next."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]  # the first is run_node's
    return (
        any(frame.f_code is await_or_execute.__code__ for frame in frames)
        and {frame.f_globals["__name__"].partition(".")[0] for frame in frames} <= FOREIGN
    )


def run_command(
    read_arguments: Callable[[Sequence[str]], argparse.Namespace],
    make_node: Callable[[str], Client],
    use: Callable[[Client, argparse.Namespace], object],
) -> int:
    """The client behind a command of m2distill, made in the namespace that was asked for; returns the exit status."""
    try:
        options = read_arguments(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    except UserError as error:
        print(f"m2distill: error: {error}", file=sys.stderr)
        return 2
    return run_client(
        lambda: make_node(options.namespace),
        lambda node: use(node, options),
        complaint="m2distill: error",
        signals=SignalHandlerOptions.NO,
    )


def run_client(
    make_node: Callable[[], Client],
    use: Callable[[Client], object],
    complaint: str = "error",
    signals: SignalHandlerOptions = SignalHandlerOptions.ALL,
) -> int:
    """Let a node that asks others do its work; returns the exit status: 2 after an error that the user can mend, which
    is told after the word `complaint`, 130 when interrupted."""
    rclpy.init(signal_handler_options=signals)
    node: Client | None = None
    try:
        node = make_node()
        use(node)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` for example, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, NameValidationException) as error:
        print(f"{complaint}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
