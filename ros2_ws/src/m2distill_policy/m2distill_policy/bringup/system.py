"""Which ROS nodes make up the system, with which parameters: one description for every way to start them.

ros/launching.py makes launch files of it. Where ROS 2's launch package is missing, NodeProcesses starts the same nodes
as plain processes; `python -m m2distill_policy.bringup.system --help` does so from a shell. No ROS import here.
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
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.safety.arm_presets import arm_names, load_arm, resolve_arm
from m2distill_policy.suites import DEFAULT_SUITE, LIBERO_SUITES, listed
from m2distill_policy.utils.argument_parser import Parser

STARTER_CHECKPOINT = (
    Path(__file__).parents[1] / "starter"
)  # a checkpoint; docs/results.md has its origin and its success
FASTDDS_PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
STOP_SIGNALS = ((signal.SIGINT, 10.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))  # and s to wait after each
STARTER_PID = "M2DISTILL_STARTER_PID"
SIMULATED_ARM = "libero_sim"


def _option(default: str | int | bool, help: str, choices: tuple[str, ...] = ()):
    choices = ("true", "false") if isinstance(default, bool) else choices
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class SharedLaunchConfig:
    """What a user chooses: each field, here and below, is an option of the starter and an argument of launch files."""

    namespace: str = _option("", "of all nodes: one per robot, as in robot1; empty: none")
    pacing: str = _option(
        "real_time",
        "real_time: a step per control period; lockstep: the simulator waits for each "
        "command, so that a slow machine gets the same episode",
        ("real_time", "lockstep"),
    )
    params_file: str = _option(
        "",
        "ROS 2 parameter file (YAML) for what has no option here, as a real arm's "
        "limits; what it says goes before options; empty: none",
    )
    remap: str = _option(
        "",
        "other names for topics, FROM:=TO, separated by spaces, as in "
        "'twist_cmd:=/servo_node/delta_twist_cmds'; empty: none",
    )


@dataclass(frozen=True)
class PolicyLaunchConfig(SharedLaunchConfig):
    checkpoint: str = _option(
        "",
        "directory of the policy's checkpoint, as in runs/demo/m2distill/stages/2/checkpoint; "
        "empty: the starter, for the first three tasks of LIBERO-OBJECT in simulation",
    )
    arm: str = _option(
        SIMULATED_ARM,
        f"limits and outputs of the arm: a preset ({', '.join(arm_names())}) or the path of an arm file (docs/ros.md); "
        "every arm but libero_sim runs on wall time; try a real one with dry_run first",
    )
    dry_run: bool = _option(False, "publish what the policy would do on ~/action, and no command")
    sampling: str = _option(
        DEFAULT_SAMPLING,
        "how the policy's mixture becomes an action: stochastic, low_noise or mode (the most likely mode's mean)",
        SAMPLING_MODES,
    )
    seed: int = _option(0, "of the policy's draws")
    image_transport: str = _option(
        "raw", "raw: <camera>/image_raw; compressed: <camera>/image_raw/compressed", ("raw", "compressed")
    )
    record: str = _option("", "folder for episodes: starts the recorder (docs/recording.md); empty: no recorder")
    operator: str = _option("", "who teleoperates or watches, a label of recorded episodes")
    follow_checkpoint: bool = _option(
        False,
        "swap checkpoints when `checkpoint` is a link that is moved, as m2distill promote moves a run's `current`",
    )
    autostart: bool = _option(True, "configure and activate at once; false: leave that to a lifecycle manager")


@dataclass(frozen=True)
class SimLaunchConfig(SharedLaunchConfig):
    suite: str = _option(DEFAULT_SUITE, f"LIBERO suite to simulate: {listed(LIBERO_SUITES)}")
    task: int = _option(0, "index of the task within the suite, from 0")
    initial_state: int = _option(
        0, "index among the task's initial states; 0 to 39 are for demonstrations, 40 to 49 for reports"
    )
    assets: str = _option("", "builtin, installed, hub or a folder; empty: the best there is")
    image_size_px: int = _option(128, "side of the cameras' images; at least the checkpoint's")
    step_limit: int = _option(
        0,
        "steps of an episode, told or not, after which the world stands still until the next "
        "reset; 600 is LIBERO's number, 0: endless",
    )
    video: str = _option("", "mp4 file of the first episode, written when it ends; empty: none")


@dataclass(frozen=True)
class SystemLaunchConfig(SimLaunchConfig, PolicyLaunchConfig):
    """The policy, and the simulator where `arm` is the simulated one."""


def read_option(option: Field, text: str) -> Any:
    """The value that a user wrote, as the option's type. Raises UserError, also for what is none of the choices."""
    choices = option.metadata["choices"]
    if choices and text.lower() not in choices:
        raise UserError(unknown_name(option.name, text, choices))
    if option.type is bool:
        return text.lower() == "true"
    if option.name == "arm":
        return resolve_arm(text)
    if option.type is str:
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{option.name} is {text!r}, expected a whole number") from None


Parameters = dict[str, bool | int | float | str]


@dataclass(frozen=True)
class NodeDescription:
    """One node. `ros2 run package executable` starts it, and so does `python -m module`."""

    package: str
    executable: str
    name: str
    namespace: str
    parameters: Parameters
    params_file: str = ""  # goes before `parameters`
    remappings: tuple[tuple[str, str], ...] = ()

    @property
    def module(self) -> str:
        return f"{self.package}.ros.nodes.{self.executable}"


def _node(config: SharedLaunchConfig, package: str, name: str, parameters: Parameters) -> NodeDescription:
    if config.params_file and not Path(config.params_file).is_file():
        raise UserError(f"params_file {config.params_file} is not a file; give a ROS 2 parameter file, or leave it out")
    remappings = []
    for rule in config.remap.split():
        old, separator, new = rule.partition(":=")
        if not (old and separator and new):
            raise UserError(f"remap has {rule!r}, expected FROM:=TO, several of them separated by spaces")
        remappings.append((old, new))
    return NodeDescription(
        package, f"{name}_node", name, config.namespace, parameters, config.params_file, tuple(remappings)
    )


def policy_nodes(config: PolicyLaunchConfig) -> tuple[NodeDescription, ...]:
    """The policy without a simulator, and the recorder if there is to be one. Both count the simulator's time when the
    arm is the simulated one."""
    arm = resolve_arm(config.arm)
    load_arm(arm)  # a wrong file is reported before any node starts
    if not config.checkpoint and arm != SIMULATED_ARM:
        raise UserError(
            f"no checkpoint for {config.arm}; give one that was learned on this arm: the starter knows the "
            "simulated one alone"
        )
    shared: Parameters = {
        "checkpoint": config.checkpoint or str(STARTER_CHECKPOINT),
        "arm": arm,
        "image_transport": config.image_transport,
        "autostart": config.autostart,
        "use_sim_time": arm == SIMULATED_ARM,
    }
    policy_node = _node(
        config,
        "m2distill_policy",
        "policy",
        {
            **shared,
            "follow_checkpoint": config.follow_checkpoint,
            "dry_run": config.dry_run,
            "pacing": config.pacing,
            "sampling": config.sampling,
            "seed": config.seed,
        },
    )
    recorder = _node(
        config, "m2distill_policy", "recorder", {**shared, "directory": config.record, "operator": config.operator}
    )
    return (policy_node, recorder) if config.record else (policy_node,)


def sim_nodes(config: SimLaunchConfig) -> tuple[NodeDescription, ...]:
    return (
        _node(
            config,
            "m2distill_sim",
            "sim",
            {
                "suite": config.suite,
                "task": config.task,
                "initial_state": config.initial_state,
                "assets": config.assets,
                "image_size_px": config.image_size_px,
                "pacing": config.pacing,
                "step_limit": config.step_limit,
                "video": config.video,
            },
        ),
    )


def system_nodes(config: SystemLaunchConfig) -> tuple[NodeDescription, ...]:
    return (*sim_nodes(config), *policy_nodes(config)) if config.arm == SIMULATED_ARM else policy_nodes(config)


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
    for old, new in node.remappings:
        arguments += ["-r", f"{old}:={new}"]
    return [*arguments, "--params-file", node.params_file] if node.params_file else arguments


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
        self.environment = {
            **os.environ,
            **environment(),
            "ROS_LOG_DIR": str(self._log_dir.resolve()),
            "PYTHONUNBUFFERED": "1",
            STARTER_PID: str(os.getpid()),
            **(variables or {}),
        }
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "NodeProcesses":
        self._log_dir.mkdir(parents=True, exist_ok=True)
        try:
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
                raise UserError(
                    f"node {name} ended with status {process.returncode}: "
                    f"{lines[-1].removeprefix('error: ')} (log: {log})"
                )

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


def run(config: SystemLaunchConfig, log_dir: Path) -> NoReturn:
    """Start the system and stay until interrupted, or until a node ends by itself (UserError)."""
    with NodeProcesses(system_nodes(config), log_dir) as nodes:
        print(f"{' and '.join(nodes.pids)} run, logs in {log_dir}/; Ctrl-C ends them", flush=True)
        while True:
            nodes.check()
            time.sleep(0.5)


DESCRIPTION = """Start a policy, and the simulator that it controls if --arm is libero_sim, until Ctrl-C.

Ctrl-C ends all nodes; the exit status is then 130."""
OPTION_NAMES = {"step_limit": ("--max-steps", "--step-limit")}  # m2distill's name first, then the node's


def add_arguments(parser: Parser) -> None:
    """Add an option for each field of SystemLaunchConfig, and --log-dir."""
    for option in fields(SystemLaunchConfig):
        names = OPTION_NAMES.get(option.name, ("--" + option.name.replace("_", "-"),))
        text = option.metadata["help"].replace("%", "%%")
        if option.type is bool:
            parser.add_switch(*names, default=bool(option.default), help=text)
        elif choices := option.metadata["choices"]:
            parser.add_argument(*names, dest=option.name, default=option.default, choices=choices, help=text)
        else:
            parser.add_argument(*names, dest=option.name, default=option.default, type=option.type, help=text)
    parser.add_argument("--log-dir", type=Path, default=Path("runs/ros"), help="folder of the nodes' logs")


def chosen_by(options: argparse.Namespace) -> tuple[SystemLaunchConfig, Path]:
    """The system that parsed options describe, and the folder for logs."""
    return SystemLaunchConfig(**{f.name: getattr(options, f.name) for f in fields(SystemLaunchConfig)}), options.log_dir


def read_arguments(arguments: Sequence[str]) -> tuple[SystemLaunchConfig, Path]:
    """The system that a command line describes, and the folder for logs. Raises UserError."""
    parser = Parser("m2distill run", DESCRIPTION)
    add_arguments(parser)
    return chosen_by(parser.parse_args(arguments))


def start(config: SystemLaunchConfig, log_dir: Path) -> NoReturn:
    """Run the system; SIGTERM ends it like Ctrl-C. Raises UserError if a node ends by itself."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(config, log_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    """`m2distill run` without the training package; returns the exit status."""
    try:
        start(*read_arguments(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"m2distill: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
