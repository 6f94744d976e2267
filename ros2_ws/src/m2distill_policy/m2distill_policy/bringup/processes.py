"""Nodes as plain processes, for machines without ROS 2's launch package. No ROS import here."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.bringup.preflight import check_ros_variables, check_texts, missing_rmw
from m2distill_policy.errors import UserError
from m2distill_policy.utils.openmp import wait_settings

FASTDDS_PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
# Signals that stop a node, each with the time in s before the next one is sent.
STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
STARTER_PID = "M2DISTILL_STARTER_PID"

ParameterValues = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class NodeDescription:
    """One node, started by `ros2 run package executable` or by `python -m module`."""

    package: str
    executable: str
    name: str
    namespace: str
    parameters: ParameterValues
    params_file: str = ""  # its values take precedence over `parameters`
    remappings: tuple[tuple[str, str], ...] = ()
    optional: bool = False  # its end does not end the other nodes

    @property
    def module(self) -> str:
        return f"{self.package}.ros.nodes.{self.executable}"


def environment(present: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that the nodes need and that are not among the `present` ones."""
    needed = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(FASTDDS_PROFILE),  # read by Fast DDS 2, Jazzy's
        "FASTDDS_DEFAULT_PROFILES_FILE": str(FASTDDS_PROFILE),  # read by Fast DDS 3
        "MUJOCO_GL": "egl",
        "OMP_NUM_THREADS": "1",  # for numpy and MuJoCo; the policy's parameter sets torch's
        **wait_settings(present),
    }
    return {name: value for name, value in needed.items() if name not in present}


def command_line(node: NodeDescription) -> list[str]:
    """Return the command that starts the node as a plain process of this Python."""
    arguments = [sys.executable, "-m", node.module, "--ros-args", "-r", f"__node:={node.name}"]
    if node.namespace:
        arguments += ["-r", f"__ns:=/{node.namespace.strip('/')}"]
    for name, value in node.parameters.items():
        arguments += ["-p", f"{name}:={_yaml(value)}"]
    for old, new in node.remappings:
        arguments += ["-r", f"{old}:={new}"]
    return [*arguments, "--params-file", node.params_file] if node.params_file else arguments


def _yaml(value: bool | int | float | str) -> str:
    """Return a YAML scalar that keeps its type, so that a text of digits stays a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class NodeProcesses:
    """Context manager that runs nodes as processes and leaves none behind, however its block ends.

    Each node has a process group of its own and writes to `<log_dir>/<name>.log`. It also ends when the thread that
    started it ends. Other ROS processes that must find the nodes need the same `environment`.

    Args:
        nodes: The nodes, in the order of their start, each with another name.
        log_dir: Folder for the logs; created if it does not exist.
        variables: Additional environment variables, such as ROS_DOMAIN_ID.
    """

    def __init__(self, nodes: Sequence[NodeDescription], log_dir: Path, variables: Mapping[str, str] | None = None):
        names = [node.name for node in nodes]
        if len(set(names)) < len(names):
            raise ValueError(f"the nodes are {', '.join(names)}, expected every name once, also in other namespaces")
        self._nodes = nodes
        self.log_dir = Path(log_dir)
        self.environment = {
            **os.environ,
            **environment(),
            "ROS_LOG_DIR": str(self.log_dir.resolve()),
            "PYTHONUNBUFFERED": "1",
            STARTER_PID: str(os.getpid()),
            **(variables or {}),
        }
        self._processes: dict[str, subprocess.Popen] = {}
        self._optional = {node.name for node in nodes if node.optional}
        self._reported: set[str] = set()  # optional nodes that have ended

    def __enter__(self) -> "NodeProcesses":
        check_texts(word for node in self._nodes for word in command_line(node))
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            check_ros_variables(self.environment)
            for node in self._nodes:
                with self.log_path(node.name).open("wb") as log:
                    self._processes[node.name] = subprocess.Popen(
                        command_line(node),
                        env=self.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
        except OSError as error:
            self.stop()
            raise UserError(
                f"the nodes cannot write their logs into {self.log_dir} ({error.strerror}); choose another folder"
            ) from None
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in self._processes.items()}

    def log_path(self, name: str) -> Path:
        return self.log_dir / f"{name}.log"

    def check(self) -> None:
        """Raise UserError with the last line of its log if a node has ended by itself; report an optional one once."""
        for name, process in self._processes.items():
            if process.poll() is None or name in self._reported:
                continue
            log = self.log_path(name)
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            reason = missing_rmw(process.returncode, self.environment) or (lines or ["its log is empty"])[-1]
            problem = (
                f"node {name} ended with status {process.returncode}: {reason.removeprefix('error: ')} (log: {log})"
            )
            if name not in self._optional:
                raise UserError(problem)
            self._reported.add(name)
            print(f"{problem}; the others continue", file=sys.stderr, flush=True)

    def suspend(self) -> None:
        """Send SIGTSTP to all nodes: those that move an arm stop it and end their order, and all continue to run."""
        for process in self._processes.values():
            _signal_group(process.pid, signal.SIGTSTP)

    def stop(self) -> None:
        """Interrupt, terminate, then kill; return when all process groups have ended. The policy is stopped first."""
        for number, patience_s in STOP_SIGNALS:
            alive = [p for p in reversed(self._processes.values()) if p.poll() is None]
            if number == signal.SIGKILL:  # includes processes that a node has left in its group
                alive = list(self._processes.values())
            for process in alive:
                _signal_group(process.pid, number)
            deadline_s = time.monotonic() + patience_s
            for process in alive:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline_s - time.monotonic()))


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def die_with_starter() -> None:
    """Arrange in a node that SIGTERM reaches it when its starter ends, even after SIGKILL of the starter.

    The starter is `m2distill run` or `ros2 launch`. A node that was started by hand has none.
    """
    starter = os.environ.get(STARTER_PID)
    if starter is None:
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == int(starter):
        return
    try:  # the parent is a launch prefix such as `xterm -e`, or the starter ended before the call above
        end = os.pidfd_open(int(starter))
    except ProcessLookupError:
        raise SystemExit(1) from None
    threading.Thread(target=_terminate_after, args=(end,), daemon=True).start()


def _terminate_after(end: int) -> None:
    """Send SIGTERM to this process when the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.poll()
    os.kill(os.getpid(), signal.SIGTERM)
