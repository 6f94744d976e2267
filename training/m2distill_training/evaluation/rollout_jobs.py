"""Jobs of episodes in worker processes, and the file of finished episodes."""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import require_at_least
from m2distill_sim.probe import check_simulation
from m2distill_sim.suites import assets_of, find_task
from m2distill_training.evaluation.acting_weights import acting_id
from m2distill_training.evaluation.episode_runner import forget_checkpoint, run_episodes
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec, is_filmed
from m2distill_training.execution.executor import run_jobs
from m2distill_training.execution.jobs import Job, Outcome
from m2distill_training.execution.open import open_executor
from m2distill_training.runs.provenance import result_versions
from m2distill_training.runs.records import append_line, read_lines, write_lines
from m2distill_training.utils.schemas import is_count, is_text, optional

REMEDY = "restore it from a copy, or remove it to run its episodes again"
ROUNDS = 2  # episodes of a job for each of its environments
LONGEST_NAME = 255  # bytes


def is_video(value: Any) -> bool:
    """Return True for the path of a video relative to the file that names it."""
    return (
        is_text(value)
        and not value.startswith("/")
        and value.endswith(".mp4")
        and all(len(name.encode()) <= LONGEST_NAME for name in value.split("/"))
    )


EPISODE = {"success": bool, "steps": is_count, "held": str, "video": optional(is_video)}  # a line of episodes.jsonl


@dataclass(frozen=True)
class ProgressCallbacks:
    """Functions that are called while episodes run.

    `begin` receives the number of episodes to run, `result` each result, `repeat` an episode that is repeated and why.
    """

    begin: Callable[[int], None] = lambda total: None
    result: Callable[[RolloutResult], None] = lambda result: None
    repeat: Callable[[RolloutSpec, str], None] = lambda spec, reason: None


def run_rollouts(
    specs: Sequence[RolloutSpec],
    workers: int | None,
    kept: Path,
    callbacks: ProgressCallbacks = ProgressCallbacks(),
    cluster: str | None = None,
) -> list[RolloutResult]:
    """Return results in the order of `specs`; run the episodes that the file `kept` lacks and append them to it.

    Args:
        specs: the episodes.
        workers: CPUs for episodes, see open_executor; 0 runs in this process, for debugging.
        kept: file of finished episodes.
        callbacks: called while episodes run.
        cluster: a Ray cluster, see open_executor.

    Raises:
        UserError: the settings are out of range, or an episode failed repeatedly.
    """
    if workers is not None:
        require_at_least(0, workers=workers)
    rollouts = Rollouts(specs, kept)

    def keep(result: RolloutResult) -> None:
        rollouts.keep(result)
        callbacks.result(result)

    def take(outcome: Outcome) -> None:
        for result in rollouts.take(outcome):
            callbacks.result(result)

    def repeat(job: Job, reason: str) -> None:
        finished = {line["state"] for line in read_lines(job.arguments[2], EPISODE, REMEDY)}
        for spec in job.arguments[0]:
            if spec.state not in finished:
                callbacks.repeat(spec, reason)

    callbacks.begin(len(rollouts.missing))
    if workers == 0:
        forget_checkpoint()  # its folder may have been written again
        with one_thread():
            for job in rollouts.jobs():
                run_episodes(job.arguments[0], keep)
    elif rollouts.missing:
        with open_executor(workers, cluster, kept.parent, simulation_check(specs)) as executor:
            executor.on_repeat = repeat
            jobs = rollouts.jobs(executor.capacity().cpus)
            run_jobs(executor, jobs, take)
    return rollouts.results()


class Rollouts:
    """Episodes, and which of them a file of finished ones lacks.

    Equal episodes of equal weights run once, as the last of their specs, and share a result. Lines of other assets
    or versions do not count. An episode is repeated if its video is missing or shows a later episode of the same name.

    Attributes:
        specs: the episodes.
        missing: those that must run.
    """

    def __init__(self, specs: Sequence[RolloutSpec], kept: Path):
        self.specs = list(specs)
        self._file = _EpisodeFile(kept, specs)
        self._once = {self._file.key(spec): spec for spec in specs}
        self._results = {spec: result for spec in self._once.values() if (result := self._file.finished(spec))}
        self.missing = [spec for spec in self._once.values() if spec not in self._results]

    def jobs(self, cpus: int = 1) -> list[Job]:
        """Return jobs for the missing episodes, whose outcomes are for `take`.

        A job has episodes of one checkpoint and task: up to ROUNDS for each environment, fewer if `cpus` would be idle.
        """
        groups: dict[tuple, list[RolloutSpec]] = {}
        for spec in self.missing:
            groups.setdefault((spec.checkpoint, spec.suite, spec.task, spec.environments), []).append(spec)
        jobs = []
        for (checkpoint, suite, task, environments), specs in groups.items():
            least = -(-cpus // len(groups))  # jobs of this group, so that no CPU is idle
            size = 1 if environments == 1 else max(environments, min(ROUNDS * environments, -(-len(specs) // least)))
            group = f"{checkpoint} {suite} {task}"
            for part in (specs[i : i + size] for i in range(0, len(specs), size)):
                name = f"episodes {group} {part[0].state}"
                arguments = (tuple(part), *self._file.journal(part))
                jobs.append(Job(name, run_job, arguments, group=group, inputs=(checkpoint,)))
        return jobs

    def take(self, outcome: Outcome) -> list[RolloutResult]:
        """Append the results of a job to the file and return them."""
        for result in outcome.value:
            self.keep(result)
        outcome.job.arguments[2].unlink(missing_ok=True)
        return outcome.value

    def keep(self, result: RolloutResult) -> None:
        """Append a result to the file."""
        self._file.append(result)
        self._results[result.spec] = result

    def results(self) -> list[RolloutResult]:
        """Return the results in the order of the specs, when none is missing."""
        return [self._results[self._once[self._file.key(spec)]] for spec in self.specs]


def run_job(specs: Sequence[RolloutSpec], lines: Sequence[dict], journal: Path) -> list[RolloutResult]:
    """Run the episodes of a job.

    Args:
        specs: the episodes.
        lines: what the file of finished episodes has of each besides its outcome.
        journal: file to which each episode is appended when it has ended. After the loss of a worker, or of the whole
            command, only the other episodes remain.
    """
    of_state = {spec.state: (spec, line) for spec, line in zip(specs, lines, strict=True)}
    finished = {line["state"]: line for line in read_lines(journal, EPISODE, REMEDY)}
    results = [_read_result(spec, finished[spec.state], journal.parent) for spec in specs if spec.state in finished]

    def note(result: RolloutResult) -> None:
        append_line(journal, of_state[result.spec.state][1] | _outcome(result, journal.parent), EPISODE)

    left = [spec for spec in specs if spec.state not in finished]
    return results + (run_episodes(left, note) if left else [])


def _outcome(result: RolloutResult, base: Path) -> dict:
    """Return the part of a line that is the outcome; the path of the video is relative to `base`."""
    video = os.path.relpath(result.video, base) if result.video else None
    return {"success": result.success, "steps": result.steps, "held": result.held, "video": video}


def _read_result(spec: RolloutSpec, line: dict, base: Path) -> RolloutResult:
    video = base / line["video"] if line["video"] else None
    return RolloutResult(spec, line["success"], line["steps"], line["held"], video)


def simulation_check(specs: Sequence[RolloutSpec]) -> Callable[[], None]:
    """Return the check of a machine that is to run these episodes."""
    which = {(spec.suite, spec.assets) for spec in specs}
    return functools.partial(check_simulation, {pair: assets_of(*pair).identity() for pair in which})


class _EpisodeFile:
    """File of finished episodes, one line each, found by all that determines an episode."""

    def __init__(self, path: Path, specs: Sequence[RolloutSpec]):
        self._path = path
        self._ids = _acting_ids(specs)
        suites = dict.fromkeys((spec.suite, spec.assets) for spec in specs)
        self._assets = {which: assets_of(*which).identity() for which in suites}
        self._versions = result_versions()
        journals = sorted(path.parent.glob(f".{path.stem}-*.part"))  # of an interrupted command
        lines = [line for file in (path, *journals) for line in read_lines(file, EPISODE, REMEDY)]
        write_lines(path, lines)  # without an incomplete last line
        for journal in journals:
            journal.unlink(missing_ok=True)
        names = list(self._entries(specs[0]))
        self._lines = {json.dumps({name: line.get(name) for name in names}): line for line in lines}
        self._newest = {line["video"]: line for line in lines if line["video"]}  # of the lines with the same video

    def key(self, spec: RolloutSpec) -> str:
        return json.dumps(self._entries(spec))

    def finished(self, spec: RolloutSpec) -> RolloutResult | None:
        """Return the result of a finished episode; None if it must be run, also for lack of its video."""
        line = self._lines.get(self.key(spec))
        if line is None:
            return None
        video = self._path.parent / line["video"] if self._newest.get(line["video"]) is line else None
        if spec.videos and is_filmed(spec, line["success"]) and not (video and video.is_file()):
            return None
        return RolloutResult(spec, line["success"], line["steps"], line["held"], video)

    def append(self, result: RolloutResult) -> None:
        append_line(self._path, self._entries(result.spec) | _outcome(result, self._path.parent), EPISODE)

    def journal(self, specs: Sequence[RolloutSpec]) -> tuple[tuple[dict, ...], Path]:
        """Return the lines of a job's episodes without their outcome, and the path of its journal."""
        lines = tuple(self._entries(spec) for spec in specs)
        name = hashlib.sha256(json.dumps([lines, str(specs[0].videos)]).encode()).hexdigest()[:16]
        return lines, self._path.with_name(f".{self._path.stem}-{name}.part")

    def _entries(self, spec: RolloutSpec) -> dict:
        return {
            "checkpoint_id": self._ids[spec.checkpoint, spec.suite, spec.task],
            "suite": spec.suite,
            "task": spec.task,
            "state": spec.state,
            "sampling": spec.sampling,
            "seed": spec.seed,
            "max_steps": spec.max_steps,
            "environments": spec.environments,
            "assets": self._assets[spec.suite, spec.assets],
            "versions": self._versions,
        }


def _acting_ids(specs: Sequence[RolloutSpec]) -> dict[tuple[Path, str, int], str]:
    """Return for each checkpoint and task the id of what acts, which checkpoints with decoders may share."""
    tasks: dict[Path, dict[tuple[str, int], None]] = {}
    for spec in specs:
        tasks.setdefault(spec.checkpoint, {})[spec.suite, spec.task] = None
    ids = {}
    for folder, of_checkpoint in tasks.items():
        checkpoint = load_checkpoint(folder)
        policy = checkpoint.build_policy() if checkpoint.model_config.decoders else None
        for suite, task in of_checkpoint:
            ids[folder, suite, task] = acting_id(checkpoint, find_task(suite, task).instruction, policy)
    return ids


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: processes are the parallelism, and sums have the same order on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
