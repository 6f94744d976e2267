"""Experiment of `m2distill demo`: the whole system in one command.

It collects demonstrations of two LIBERO-OBJECT tasks and learns the first task, then the second with M2Distill and, as
a control, with plain fine-tuning. Then it starts the simulator and the policy as separate ROS 2 processes, sends each
task's instruction on the topic, and counts successes from initial states that no demonstration used.

    OUT/data/            demonstrations
    OUT/m2distill/       run folder of the method: checkpoints, metrics, evaluation.json
    OUT/finetune/        run folder of the control; its first stage is the method's
    OUT/trials/          results, videos and node logs of the trials over ROS 2
    OUT/demo.json        the settings; a demo with other settings in the same folder is rejected
    OUT/summary.json     every number; its seconds are those of the last invocation
    OUT/report.html      the same as a page

A finished phase is not repeated, so the same command continues after an interruption.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.bringup.domain import own_domain
from m2distill_policy.bringup.system import NodeProcesses, SystemLaunchConfig, system_nodes
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.schema import with_schema
from m2distill_sim.assets import find_assets
from m2distill_sim.suites import HELD_OUT, find_task
from m2distill_training import presets
from m2distill_training.evaluation.evaluate import write_evaluation
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec
from m2distill_training.experiments.collect import collect
from m2distill_training.experiments.demo_training import config_of, learn_first, learn_second
from m2distill_training.report import write_report
from m2distill_training.runs.records import RunError, begin_folder, read_json, write_atomic
from m2distill_training.utils.schemas import is_count, optional

CRITERION = 0.8  # success rate that the policy must reach on the old and on the new task: 4 of 5 episodes
SUITE = DEFAULT_SUITE
TRIALS = [{"task": is_count, "initial_state": is_count, "success": bool, "steps": is_count, "video": optional(str)}]


@dataclass(frozen=True)
class DemoPlan:
    """What the user chooses: the options of `m2distill demo`."""

    out: Path
    tasks: tuple[int, int]
    demos: int
    episodes: int
    max_steps: int
    preset: str
    seed: int

    @property
    def folders(self) -> dict[str, Path]:
        return {strategy: self.out / strategy for strategy in ("m2distill", "finetune")}


def demo(chosen: DemoPlan) -> int:
    """Run the demo or continue it; return the exit status, 1 if the policy falls short of CRITERION.

    Raises UserError.
    """
    _check(chosen)
    _begin(chosen)
    console, clock = Console(), _Clock()
    first, second = chosen.tasks
    console.print(f"m2distill demo: task {first} first, then task {second}; everything goes to {chosen.out}/")
    with clock.phase(console, f"1/4  collect {chosen.demos} demonstrations of each task"):
        builtin = find_assets("builtin")
        files = collect(SUITE, chosen.tasks, chosen.demos, chosen.out / "data", seed=chosen.seed, assets=builtin)
    configs = {strategy: config_of(chosen.preset, chosen.seed, strategy) for strategy in chosen.folders}
    with clock.phase(console, "2/4  learn the first task"):
        learn_first(configs["m2distill"], chosen.folders["m2distill"], files)
    with clock.phase(console, "3/4  learn the second task with M2Distill and, as the control, by plain fine-tuning"):
        learn_second(configs, chosen.folders, files)
    with clock.phase(console, "4/4  execute instructions over ROS 2"):
        evaluations = _run_trials(chosen)
    _summarise(chosen, console, clock, evaluations)
    if missed := shortfall(evaluations["m2distill"]):
        print(f"m2distill: demo failed: {missed}", file=sys.stderr)
        return 1
    return 0


def shortfall(evaluation: dict) -> str:
    """Where the policy that learned both tasks falls short of CRITERION; empty if it does not."""
    tasks = zip(("old task", "new task"), evaluation["stages"][-1]["tasks"], strict=True)
    missed = [
        f"{kind} {task['successes']} of {task['episodes']}"
        for kind, task in tasks
        if task["successes"] < CRITERION * task["episodes"]
    ]
    return f"{', '.join(missed)}, expected at least {CRITERION:.0%} of each task" if missed else ""


def _check(chosen: DemoPlan) -> None:
    """Raise UserError for anything that would stop a later phase."""
    for task in chosen.tasks:
        find_task(SUITE, task)
    presets.preset(chosen.preset)
    if len(set(chosen.tasks)) != 2 or not 1 <= chosen.episodes <= len(HELD_OUT):
        raise UserError(
            f"tasks {list(chosen.tasks)} and {chosen.episodes} episodes given; allowed: two different tasks, "
            f"1 to {len(HELD_OUT)} episodes"
        )
    require_at_least(1, demos=chosen.demos, max_steps=chosen.max_steps)
    require_at_least(0, seed=chosen.seed)


def _begin(chosen: DemoPlan) -> None:
    begin_folder(
        chosen.out,
        "demo",
        {
            "tasks": list(chosen.tasks),
            "demos": chosen.demos,
            "episodes": chosen.episodes,
            "max_steps": chosen.max_steps,
            "preset": chosen.preset,
            "seed": chosen.seed,
        },
    )


class _Clock:
    """Wall time of each phase, in s."""

    def __init__(self):
        self.phases: dict[str, float] = {}

    @contextmanager
    def phase(self, console: Console, title: str) -> Iterator[None]:
        console.rule(title, align="left")
        began = time.monotonic()
        yield
        self.phases[title[5:]] = round(time.monotonic() - began, 1)
        console.print(f"[dim]{self.phases[title[5:]]:.0f} s[/dim]")


def _run_trials(chosen: DemoPlan) -> dict[str, dict]:
    """Run the trials of three policies; return the evaluation of each strategy and write it into its run folder."""
    first, second = chosen.tasks
    m2distill, finetune = (folder / "stages" for folder in chosen.folders.values())
    sessions = {  # name -> checkpoint, tasks; the two longest first, in parallel on two cores
        "m2distill": (m2distill / "2" / "checkpoint", [first, second]),
        "finetune": (finetune / "2" / "checkpoint", [first, second]),
        "first_stage": (m2distill / "1" / "checkpoint", [first]),
    }
    clients: list[subprocess.Popen] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {name: pool.submit(_trials, chosen, clients, name, *session) for name, session in sessions.items()}
        try:
            results = {name: future.result() for name, future in running.items()}
        except BaseException:  # Ctrl-C, or one session failed: end the others too
            pool.shutdown(wait=False, cancel_futures=True)
            for client in clients:
                client.terminate()
            raise
    settings = {
        "sampling": DEFAULT_SAMPLING,
        "seed": chosen.seed,
        "max_steps": chosen.max_steps,
        "episodes_per_task": chosen.episodes,
    }
    return {
        strategy: write_evaluation(folder, [results["first_stage"], results[strategy]], settings)
        for strategy, folder in chosen.folders.items()
    }


def _trials(
    chosen: DemoPlan, clients: list[subprocess.Popen], name: str, checkpoint: Path, tasks: list[int]
) -> list[RolloutResult]:
    """Run one session over ROS 2 in its own domain: simulator, policy, and a client that counts successes."""
    folder = chosen.out / "trials" / name
    out = folder / "trials.json"
    if not out.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        config = SystemLaunchConfig(
            checkpoint=str(checkpoint.resolve()),
            suite=SUITE,
            task=tasks[0],
            assets="builtin",
            pacing="lockstep",
            sampling=DEFAULT_SAMPLING,
            seed=chosen.seed,
            step_limit=chosen.max_steps,
        )
        command = [
            sys.executable,
            "-m",
            "m2distill_policy.ros.clients.trial",
            "--suite",
            SUITE,
            "--out",
            str(out),
            "--video-dir",
            str((folder / "videos").resolve()),
            "--tasks",
            *map(str, tasks),
            "--initial-states",
            *map(str, HELD_OUT[: chosen.episodes]),
        ]
        with own_domain() as domain, NodeProcesses(system_nodes(config), folder / "logs", domain) as nodes:
            client = subprocess.Popen(command, env=nodes.environment, text=True, stdout=subprocess.PIPE)
            clients.append(client)
            assert client.stdout is not None  # a pipe
            try:
                for line in client.stdout:
                    _show_trial(name, json.loads(line))
                    nodes.check()
            finally:
                client.terminate()
                client.wait()
            if client.returncode != 0:
                nodes.check()  # the error of a node that has ended explains that of its client
        if client.returncode != 0:
            raise UserError(f"the trials of {name} failed; see {folder / 'logs'}")
    return [_result(checkpoint, chosen, trial) for trial in _read_trials(out, tasks, HELD_OUT[: chosen.episodes])]


def _read_trials(path: Path, tasks: Sequence[int], states: Sequence[int]) -> list[dict]:
    """Return the trials of every task from every state. Raises RunError for others."""
    remedy = "remove it to run these trials again"
    trials = read_json(path, TRIALS, remedy)
    if [(trial["task"], trial["initial_state"]) for trial in trials] != list(itertools.product(tasks, states)):
        raise RunError(f"{path} holds other trials than tasks {list(tasks)} from states {list(states)}; {remedy}")
    return trials


def _show_trial(name: str, trial: dict) -> None:
    outcome = "success" if trial["success"] else "failure"
    print(
        f"{name:10}  {trial['instruction']!r} from state {trial['initial_state']}: {outcome} after "
        f"{trial['steps']} steps",
        flush=True,
    )


def _result(checkpoint: Path, chosen: DemoPlan, trial: dict) -> RolloutResult:
    video = Path(trial["video"]) if trial["video"] else None
    spec = RolloutSpec(
        checkpoint,
        SUITE,
        trial["task"],
        trial["initial_state"],
        DEFAULT_SAMPLING,
        chosen.seed,
        chosen.max_steps,
        "builtin",
    )
    return RolloutResult(spec, trial["success"], trial["steps"], held="", video=video)


def _summarise(chosen: DemoPlan, console: Console, clock: _Clock, evaluations: dict[str, dict]) -> None:
    old, new = (find_task(SUITE, task).instruction for task in chosen.tasks)
    table = Table(title="successes over ROS 2 after the second task, 95 % Wilson interval")
    table.add_column("")
    for kind, instruction in (("old task", old), ("new task", new)):
        table.add_column(f"{kind}\n{instruction}")
    for strategy, evaluation in evaluations.items():
        table.add_row(strategy, *(_score(task) for task in evaluation["stages"][-1]["tasks"]))
    console.print(table)
    summary = {
        "tasks": list(chosen.tasks),
        "instructions": [old, new],
        "demos": chosen.demos,
        "episodes_per_task": chosen.episodes,
        "preset": chosen.preset,
        "seed": chosen.seed,
        "seconds_now": clock.phases,
        "seconds_now_total": round(sum(clock.phases.values()), 1),
        "evaluations": evaluations,
    }
    write_atomic(chosen.out / "summary.json", (json.dumps(with_schema(summary), indent=2) + "\n").encode())
    write_report(
        chosen.out / "report.html",
        list(chosen.folders.values()),
        title="m2distill demo",
        notes=f"Two tasks of LIBERO-OBJECT learned one after the other from {chosen.demos} scripted "
        "demonstrations each, then instructed over ROS 2.",
    )
    console.print(f"{sum(clock.phases.values()) / 60:.1f} minutes in all; see {chosen.out}/report.html")
    checkpoint = chosen.folders["m2distill"] / "stages/2/checkpoint"
    console.print(f"next: m2distill run --dashboard --checkpoint {checkpoint}", soft_wrap=True)


def _score(task: dict) -> str:
    low, high = task["wilson_95"]
    return f"{task['successes']} of {task['episodes']}  ({low:.0%} to {high:.0%})"
