"""Main functions of node and client processes: start, spin, and shut down on a signal or when the starter ends.

rclpy's own signal handlers close the context at once, after which a node cannot publish its last command. Here a signal
only ends the spinning, and the node closes itself while it can still publish.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor, await_or_execute
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from m2distill_policy.bringup.preflight import check_ros_variables, check_texts
from m2distill_policy.bringup.processes import die_with_starter
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import parameters

WAKE_PERIOD_S = 0.1  # maximum delay of a signal when no message arrives
NOT_OURS = {"rclpy", *sys.stdlib_module_names}
# One clock per namespace, as simulators of several robots have different times. A rule of the user comes first.
OWN_CLOCK = ("--ros-args", "-r", "/clock:=clock", "--")
REPEAT_LOG_S = 60.0  # minimum time between equal log lines, so that a faulty peer cannot fill the disk


class ClosableNode(Protocol):
    """Node that can close itself while it can still publish."""

    def close(self) -> None: ...
    def destroy_node(self) -> None: ...


@runtime_checkable
class SuspendableNode(Protocol):
    """Node that moves an arm, and therefore stops it before its process is stopped (Ctrl-Z)."""

    def suspend(self) -> None: ...
    def resume(self) -> None: ...


class StartableNode(Protocol):
    """Lifecycle node that can configure and activate itself."""

    problem: str  # why the last transition failed
    is_interrupted: Callable[[], bool]  # whether a transition that waits must end

    def get_parameter(self, name: str) -> Any: ...
    def trigger_configure(self) -> TransitionCallbackReturn: ...
    def trigger_activate(self) -> TransitionCallbackReturn: ...


Client = TypeVar("Client", bound=Node)


def _autostart(node: StartableNode, is_interrupted: Callable[[], bool]) -> None:
    """Configure and activate the lifecycle node if its parameter `autostart` is set. Raises UserError."""
    node.is_interrupted = is_interrupted
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        started = node.trigger_configure() == success and node.trigger_activate() == success
        if not started and not is_interrupted():
            raise UserError(node.problem or "the node could not start; the lines above state the reason")


def run_node(make_node: Callable[[], ClosableNode], lifecycle: bool = False) -> int:
    """Run one node until a signal arrives.

    Errors of rclpy's own services and subscriptions, such as a transition that does not fit the state, are logged and
    the node continues. An error of our own callbacks ends the node, which publishes the zero command first, because it
    could no longer be trusted to move an arm.

    Args:
        make_node: Function that creates the node.
        lifecycle: The node has a lifecycle and the parameter `autostart`.

    Returns:
        The exit status: 0, or 2 after an error that the user can fix.
    """
    stop, suspended = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, lambda *_: stop.set())
    die_with_starter()
    try:
        _init([*sys.argv, *OWN_CLOCK], SignalHandlerOptions.NO)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    node = None
    try:
        node = make_node()
        parameters.reject_undeclared(cast(Node, node))
        if lifecycle:
            _autostart(cast(StartableNode, node), stop.is_set)
        executor = SingleThreadedExecutor()
        executor.add_node(cast(Node, node))  # Python has no type for a Node that is also closable
        if isinstance(node, SuspendableNode):
            signal.signal(signal.SIGTSTP, lambda *_: suspended.set())
        while not stop.is_set():
            if suspended.is_set():
                _suspend(cast(SuspendableNode, node), suspended)
            try:
                executor.spin_once(timeout_sec=WAKE_PERIOD_S)
            except Exception as error:
                if not _is_from_rclpy(error):
                    raise
                cast(Node, node).get_logger().error(
                    f"ignored an invalid request or message: {traceback.format_exc()}",
                    throttle_duration_sec=REPEAT_LOG_S,
                )
        return 0
    except (UserError, ParameterException) as error:
        with contextlib.suppress(OSError):  # the terminal is closed
            print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()


def _suspend(node: SuspendableNode, suspended: threading.Event) -> None:
    """Stop the arm, then let SIGTSTP stop the process as usual, and return when it is continued."""
    node.suspend()
    suspended.clear()
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTSTP)  # returns when the process is continued
    signal.signal(signal.SIGTSTP, handler)
    node.resume()


def _init(arguments: list[str], signals: SignalHandlerOptions) -> None:
    """Start rclpy with these arguments. Raises UserError."""
    check_texts(sys.argv)
    check_ros_variables()
    try:
        rclpy.init(args=arguments, signal_handler_options=signals)
    except RuntimeError as error:  # from rcl, such as a parameter file that cannot be read
        raise UserError(" ".join(str(error).split())) from None


def _is_from_rclpy(error: Exception) -> bool:
    """Return whether a callback of rclpy raised the error while only code of rclpy and of Python was running.

    The executor remains usable then: it has taken the message and continues with the next one.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]  # the first frame is run_node's
    return (
        any(frame.f_code is await_or_execute.__code__ for frame in frames)
        and {frame.f_globals["__name__"].partition(".")[0] for frame in frames} <= NOT_OURS
    )


def run_command(
    read_arguments: Callable[[Sequence[str]], argparse.Namespace],
    make_node: Callable[[str], Client],
    use: Callable[[Client, argparse.Namespace], object],
) -> int:
    """Run the ROS client of a command of m2distill.

    Args:
        read_arguments: Parser of the command line; its result has the attribute `namespace`.
        make_node: Function that creates the client in a namespace.
        use: The work, with the client and the parsed arguments.

    Returns:
        The exit status, as of `run_client`.
    """
    try:
        check_texts(sys.argv)
        options = read_arguments(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    except UserError as error:
        print(f"m2distill: error: {error}", file=sys.stderr)
        return 2
    return run_client(
        lambda: make_node(options.namespace),
        lambda node: use(node, options),
        error_prefix="m2distill: error",
        signals=SignalHandlerOptions.NO,
    )


def run_client(
    make_node: Callable[[], Client],
    use: Callable[[Client], object],
    error_prefix: str = "error",
    signals: SignalHandlerOptions = SignalHandlerOptions.ALL,
) -> int:
    """Run the work of a client node.

    Args:
        make_node: Function that creates the client.
        use: The work; it raises UserError for errors that the user can fix.
        error_prefix: Word before the message of such an error.
        signals: Signals that rclpy handles.

    Returns:
        The exit status: 0, 2 after an error that the user can fix, or 130 after an interrupt.
    """
    node: Client | None = None
    try:
        _init(sys.argv, signals)
        node = make_node()
        use(node)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` for example, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, NameValidationException) as error:
        print(f"{error_prefix}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0
