"""Which ROS nodes make up the system, with which parameters: one description for every way to start them.

`launch/run.launch.py` turns it into launch_ros actions. Where the launch package is missing, NodeProcesses starts the
same nodes as plain processes; `python -m m2distill_policy.bringup --help` does so from a shell. No ROS import here.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from m2distill_policy.errors import UserError

FASTDDS_PROFILE = Path(__file__).parent / "ros" / "fastdds.xml"
STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))  # and s to wait after each
STARTER_PID = "M2DISTILL_STARTER_PID"


def _option(default: str | int, help: str):
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class SystemConfig:
    """What a user chooses: each field is an option of the starter and an argument of the launch file."""

    checkpoint: str = _option("", "directory of the policy's checkpoint")
    suite: str = _option("libero_object", "LIBERO suite to simulate")
    task: int = _option(0, "index of the task within the suite")
    initial_state: int = _option(0, "index among the task's initial states")
    assets: str = _option("", "kind or folder of the simulator's assets; empty: the best there is")
    image_size_px: int = _option(128, "side of the simulated cameras' pictures")
    pacing: str = _option("real_time", "real_time, or lockstep: the simulator waits for each command")
    acting: str = _option("sample", "how the policy's mixture becomes an action: sample, low_noise or mode_mean")
    seed: int = _option(0, "of the policy's draws")
    step_limit: int = _option(600, "steps of an episode (LIBERO's number); 0: endless")
    video: str = _option("", "mp4 file of the first episode, written when it ends; empty: none")
    namespace: str = _option("", "of all nodes: one per robot")


@dataclass(frozen=True)
class NodeDescription:
    """One node. `ros2 run package executable` starts it, and so does `python -m module`."""

    package: str
    executable: str
    name: str
    namespace: str
    parameters: dict[str, bool | int | float | str]

    @property
    def module(self) -> str:
        return f"{self.package}.ros.{self.executable}"


def system(config: SystemConfig) -> tuple[NodeDescription, ...]:
    """The simulator and the policy that drives it. Both count simulation time."""
    policy = NodeDescription("m2distill_policy", "policy_node", "policy", config.namespace, {
        "checkpoint": config.checkpoint, "pacing": config.pacing, "acting": config.acting, "seed": config.seed,
        "autostart": True, "use_sim_time": True})
    sim = NodeDescription("m2distill_sim", "sim_node", "sim", config.namespace, {
        "suite": config.suite, "task": config.task, "initial_state": config.initial_state, "assets": config.assets,
        "image_size_px": config.image_size_px, "pacing": config.pacing, "step_limit": config.step_limit,
        "video": config.video})
    return sim, policy


def environment() -> dict[str, str]:
    """What every node needs in its environment, beyond what is there; a value the user has set is kept."""
    wanted = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(FASTDDS_PROFILE),  # read by Fast DDS 2, Jazzy's
        "FASTDDS_DEFAULT_PROFILES_FILE": str(FASTDDS_PROFILE),  # by Fast DDS 3
        "MUJOCO_GL": "egl",
        "OMP_NUM_THREADS": "1",  # numpy and MuJoCo; the policy sets torch's by its parameter
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def command_line(node: NodeDescription) -> list[str]:
    """The node as a plain process of this Python."""
    arguments = [sys.executable, "-m", node.module, "--ros-args", "-r", f"__node:={node.name}"]
    if node.namespace:
        arguments += ["-r", f"__ns:=/{node.namespace.strip('/')}"]
    for name, value in node.parameters.items():
        arguments += ["-p", f"{name}:={_yaml(value)}"]
    return arguments


def _yaml(value: bool | int | float | str) -> str:
    """A YAML scalar that keeps its type: a text of digits stays a text."""
    if isinstance(value, bool):
        return str(value).lower()
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


class NodeProcesses:
    """Nodes as processes, each in a process group of its own, with its output in `<log_dir>/<name>.log`.

    A context manager: whatever ends the block, no node outlives it. A node also ends when the thread that started it
    does, however that happens. `environment` is what the nodes see, `variables` (ROS_DOMAIN_ID, say) included; give it
    to other ROS processes that are to find them.
    """

    def __init__(self, nodes: Sequence[NodeDescription], log_dir: Path, variables: Mapping[str, str] | None = None):
        self._nodes = nodes
        self._log_dir = Path(log_dir)
        self.environment = {**os.environ, **environment(), "ROS_LOG_DIR": str(self._log_dir.resolve()),
                            "PYTHONUNBUFFERED": "1", STARTER_PID: str(os.getpid()), **(variables or {})}
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "NodeProcesses":
        self._log_dir.mkdir(parents=True, exist_ok=True)
        try:
            for node in self._nodes:
                with self.log_path(node.name).open("wb") as log:
                    self._processes[node.name] = subprocess.Popen(
                        command_line(node), env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                        stderr=subprocess.STDOUT, start_new_session=True)
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
        return self._log_dir / f"{name}.log"

    def check(self) -> None:
        """Raise UserError with the last line of its log when a node has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.log_path(name)
                lines = log.read_text(errors="replace").splitlines() or ["it said nothing"]
                raise UserError(f"node {name} ended with status {process.returncode}: "
                                f"{lines[-1].removeprefix('error: ')} (log: {log})")

    def stop(self) -> None:
        """Ask, then insist, then kill; returns when all groups are gone. The policy is asked first."""
        for number, patience_s in STOP_SIGNALS:
            alive = [p for p in reversed(self._processes.values()) if p.poll() is None]
            if number == signal.SIGKILL:  # also what a node may have left in its group
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
    """Called by a node: SIGTERM reaches it when the thread that started it ends, even by SIGKILL of its process."""
    starter = os.environ.get(STARTER_PID)
    if starter is None:
        return
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(starter):  # it died before the call above
        raise SystemExit(1)


def run(config: SystemConfig, log_dir: Path) -> None:
    """Start the system and stay until interrupted, or until a node ends by itself (UserError)."""
    with NodeProcesses(system(config), log_dir) as nodes:
        print(f"sim and policy run, logs in {log_dir}/; Ctrl-C ends them", flush=True)
        while True:
            nodes.check()
            time.sleep(0.5)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="m2distill run",
                                     description="Start the simulator and a policy that drives it.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for option in fields(SystemConfig):
        parser.add_argument("--" + option.name.replace("_", "-"), type=option.type, default=option.default,
                            required=option.name == "checkpoint", help=option.metadata["help"])
    parser.add_argument("--log-dir", type=Path, default=Path("runs/ros"))
    options = vars(parser.parse_args(arguments))
    log_dir = options.pop("log_dir")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(SystemConfig(**options), log_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
