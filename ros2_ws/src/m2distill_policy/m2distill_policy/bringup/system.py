"""Composition of the system: which nodes run, with which parameters. One description for every way to start them.

The launch files use it through `ros/common/launch_description.py`. Without ROS 2's launch package, `m2distill run`
starts the same nodes as plain processes (`processes.py`). No ROS import here.
"""

import argparse
import signal
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from m2distill_policy.bringup.launch_config import (
    PolicyLaunchConfig,
    SharedLaunchConfig,
    SimLaunchConfig,
    SystemLaunchConfig,
    choices_of,
    read_option,
)
from m2distill_policy.bringup.parameters import (
    SIMULATED_ARM,
    ArmParameters,
    PolicyParameters,
    RecorderParameters,
    SimParameters,
)
from m2distill_policy.bringup.preflight import check_dashboard
from m2distill_policy.bringup.processes import NodeDescription, NodeProcesses, ParameterValues
from m2distill_policy.cameras import read_cameras
from m2distill_policy.errors import UserError
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import load_arm, resolve_arm
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.utils.argument_parser import Parser

# The shipped checkpoint; docs/results.md states its origin and its success rates.
STARTER_CHECKPOINT = Path(__file__).parents[1] / "starter"


def policy_nodes(config: PolicyLaunchConfig) -> tuple[NodeDescription, ...]:
    """Return the policy, and those of recorder, teleoperation and dashboard that are chosen.

    A real arm without a checkpoint has no policy yet: the others run alone, for its first demonstrations.

    Raises:
        UserError: The arm file is invalid, or nothing would run.
    """
    arm = resolve_arm(config.arm)
    robot = robot_from_settings(load_arm(arm))  # reports an invalid file before any node starts
    acts = not _teaches_first(config)
    if not acts and not (config.record or config.teleop):
        raise UserError(
            f"no checkpoint for {config.arm}; set the option checkpoint to one that was trained on this arm, because "
            f"the starter is for {SIMULATED_ARM} only, or set record and teleop to record its first demonstrations"
        )
    if not acts and config.record:
        robot.spec()  # reports what the arm file lacks
    chosen: ParameterValues = {option.name: getattr(config, option.name) for option in fields(PolicyLaunchConfig)}
    chosen["checkpoint"] = (config.checkpoint or str(STARTER_CHECKPOINT)) if acts else ""
    chosen["directory"], chosen["arm"] = config.record, arm
    clock: ParameterValues = {"use_sim_time": config.use_sim_time == "true"}
    if config.use_sim_time == "auto":  # with a real arm nothing is set, so that an including launch file can decide
        clock = {"use_sim_time": True} if arm == SIMULATED_ARM else {}
    nodes: list[NodeDescription] = []
    if acts:
        policy = _chosen(chosen, ArmParameters, PolicyParameters, OutputParameters)
        nodes.append(_node(config, "m2distill_policy", "policy", policy | clock))
    if config.record:
        recorder = _chosen(chosen, RecorderParameters)
        nodes.append(_node(config, "m2distill_policy", "recorder", recorder | clock))
    if config.teleop:
        teleop = _chosen(chosen, ArmParameters)
        nodes.append(replace(_node(config, "m2distill_policy", "teleop", teleop | clock), optional=True))
    if config.dashboard:
        shown: ParameterValues = {"port": config.dashboard_port, "episodes": config.record, "run": config.dashboard_run}
        nodes.append(replace(_node(config, "m2distill_policy", "dashboard", shown), optional=True))
    return tuple(nodes)


def missing_policy(config: PolicyLaunchConfig) -> str:
    """Return one line about a policy that is not started because there is no checkpoint yet; empty if it is started."""
    if not _teaches_first(config):
        return ""
    return (
        f"no checkpoint: the policy is not started; record demonstrations of {config.arm}, import them and train, then "
        "start again with the option checkpoint (docs/ros.md, first demonstrations)"
    )


def next_step(config: PolicyLaunchConfig) -> str:
    """Return what to do in another terminal, or on the page, once the nodes run."""
    page = f"open http://127.0.0.1:{config.dashboard_port}" if config.dashboard else ""
    namespace = f"--namespace {config.namespace} " if config.namespace else ""
    if not _teaches_first(config):
        return f"m2distill instruct {namespace}TEXT in another terminal" + (f", or {page}" if page else "")
    if not config.record:
        return "move the arm; to record demonstrations, start again with --record FOLDER" + (
            f"; {page} to watch" if page else ""
        )
    record = page or f"m2distill service {namespace}recorder/start in another terminal"
    return f"{record}, record demonstrations (docs/recording.md), then m2distill import bag {config.record} --out DATA"


def _teaches_first(config: PolicyLaunchConfig) -> bool:
    return not config.checkpoint and resolve_arm(config.arm) != SIMULATED_ARM


def sim_nodes(config: SimLaunchConfig) -> tuple[NodeDescription, ...]:
    """Return the simulator."""
    if config.cameras:
        read_cameras(Path(config.cameras))  # reports an invalid file before any node starts
    chosen = {option.name: getattr(config, option.name) for option in fields(SimLaunchConfig)}
    return (_node(config, "m2distill_sim", "sim", _chosen(chosen, SimParameters)),)


def system_nodes(config: SystemLaunchConfig) -> tuple[NodeDescription, ...]:
    """Return the policy, preceded by the simulator if the arm is simulated."""
    return (
        (*sim_nodes(config), *policy_nodes(config))
        if resolve_arm(config.arm) == SIMULATED_ARM
        else policy_nodes(config)
    )


def _chosen(chosen: ParameterValues, *groups: type) -> ParameterValues:
    """Return the options that are parameters of these groups."""
    names = [field.name for group in groups for field in fields(group)]
    return {name: chosen[name] for name in names if name in chosen}


def _node(config: SharedLaunchConfig, package: str, name: str, parameters: ParameterValues) -> NodeDescription:
    if config.params_file and not Path(config.params_file).is_file():
        raise UserError(
            f"params_file {config.params_file} is not a file; give a ROS 2 parameter file, or omit the option"
        )
    remappings = []
    for rule in config.remap.split():
        old, separator, new = rule.partition(":=")
        if not (old and separator and new):
            raise UserError(f"remap has {rule!r}, expected FROM:=TO, several of them separated by spaces")
        remappings.append((old, new))
    return NodeDescription(
        package, f"{name}_node", name, config.namespace, parameters, config.params_file, tuple(remappings)
    )


def run(config: SystemLaunchConfig, log_dir: Path) -> NoReturn:
    """Start the system and wait until it is interrupted, or until a node ends by itself (UserError)."""
    with NodeProcesses(system_nodes(config), log_dir) as nodes:

        def suspend(*_) -> None:
            """Stop the arm before this process is stopped (Ctrl-Z), because the nodes have sessions of their own."""
            nodes.suspend()
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)  # returns when the process is continued
            signal.signal(signal.SIGTSTP, handler)

        signal.signal(signal.SIGTSTP, suspend)
        if line := missing_policy(config):
            print(line, flush=True)
        print(f"running: {', '.join(nodes.pids)}; logs in {log_dir}/; press Ctrl-C to stop", flush=True)
        print(f"next: {next_step(config)}", flush=True)
        while True:
            nodes.check()
            time.sleep(0.5)


DESCRIPTION = """Start a policy, and the simulator that it controls if --arm is libero_sim, until Ctrl-C.

Ctrl-C ends all nodes; the exit status is then 130."""
OPTION_NAMES = {"step_limit": ("--max-steps", "--step-limit")}  # m2distill's name first, then the node's


def add_arguments(parser: Parser, without: Collection[str] = ()) -> None:
    """Add an option for each field of SystemLaunchConfig but `without`, and --log-dir."""
    for option in fields(SystemLaunchConfig):
        if option.name in without:
            continue
        names = OPTION_NAMES.get(option.name, ("--" + option.name.replace("_", "-"),))
        text = option.metadata["description"].replace("%", "%%")
        if option.type is bool:
            parser.add_switch(*names, default=bool(option.default), help=text)
            continue
        value: dict[str, Any] = {"dest": option.name, "default": option.default, "help": text}
        if choices := choices_of(option):
            parser.add_argument(*names, choices=choices, **value)
        elif option.type is str:
            parser.add_argument(*names, type=partial(read_option, option), **value)
        else:
            parser.add_argument(*names, type=option.type, **value)
    parser.add_argument("--log-dir", type=Path, default=Path("runs/ros"), help="folder for the nodes' logs")


def chosen_by(options: argparse.Namespace) -> tuple[SystemLaunchConfig, Path]:
    """Return the system that parsed options describe, and the folder for logs."""
    chosen: dict[str, Any] = {f.name: getattr(options, f.name, f.default) for f in fields(SystemLaunchConfig)}
    return SystemLaunchConfig(**chosen), options.log_dir


def read_arguments(arguments: Sequence[str]) -> tuple[SystemLaunchConfig, Path]:
    """Return the system that a command line describes, and the folder for logs. Raises UserError."""
    parser = Parser("m2distill run", DESCRIPTION)
    add_arguments(parser)
    return chosen_by(parser.parse_args(arguments))


def start(config: SystemLaunchConfig, log_dir: Path) -> NoReturn:
    """Run the system; SIGTERM ends it like Ctrl-C. Raises UserError if a node ends by itself."""
    if config.dashboard:
        check_dashboard()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(config, log_dir)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `m2distill run` without the training package; return the exit status."""
    try:
        start(*read_arguments(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"m2distill: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
