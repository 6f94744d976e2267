"""Episodes of a checkpoint in simulation, and the file of finished ones.

Each episode depends only on its RolloutSpec. Episodes start from suites.held_out, demonstrations from
suites.DEMO_STATES. No checkpoint is selected by its success, so no state serves both selection and reporting.
"""

import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2distill_policy.cameras import recorded_cameras
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError, require_at_least
from m2distill_policy.spec import CameraSpec
from m2distill_sim.probe import check_simulation
from m2distill_sim.suites import CHOICE_FROM, DRAWN_FROM, HELD_OUT, Task, assets_of, held_out, initial_state
from m2distill_training.execution.executor import run_jobs
from m2distill_training.execution.jobs import Job
from m2distill_training.execution.open import open_executor
from m2distill_training.runs.provenance import result_versions
from m2distill_training.runs.records import append_line, read_lines, write_lines
from m2distill_training.utils.schemas import is_count, is_text, optional

if TYPE_CHECKING:  # it imports the renderer, which selects its platform at import
    from m2distill_sim.arm_env import ArmEnv

RENDER_PX = 128  # least side rendered, as in demonstrations and on the simulator's topics
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
class RolloutSpec:
    """All that determines one episode."""

    checkpoint: Path
    suite: str
    task: int
    state: int  # number of the start, see suites.held_out
    sampling: str  # see action.SAMPLING_MODES
    seed: int
    max_steps: int
    assets: str | None
    videos: Path | None = None  # folder for the video


@dataclass(frozen=True)
class RolloutResult:
    """Outcome of one episode."""

    spec: RolloutSpec
    success: bool
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    video: Path | None = None


@dataclass(frozen=True)
class ProgressCallbacks:
    """Functions that are called while episodes run.

    `begin` receives the number of episodes to run, `result` each result, `repeat` an episode that is repeated and why.
    """

    begin: Callable[[int], None] = lambda total: None
    result: Callable[[RolloutResult], None] = lambda result: None
    repeat: Callable[[RolloutSpec, str], None] = lambda spec, reason: None


def make_specs(
    checkpoint: Path,
    tasks: Sequence[Task],
    episodes: int,
    sampling: str,
    seed: int,
    max_steps: int,
    assets: str | None,
    videos: Path | None,
    starts: str = "report",
) -> list[RolloutSpec]:
    """Return the specs of the first `episodes` held-out starts of every task; `starts` as in suites.held_out.

    Raises UserError for a repeated task and for numbers out of range.
    """
    require_at_least(1, episodes=episodes, max_steps=max_steps)
    require_at_least(0, seed=seed)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(
            f"tasks {[task.index for task in tasks]} given, expected at least one and none twice: a "
            "repeated episode is no further evidence"
        )
    return [
        RolloutSpec(checkpoint, task.suite, task.index, state, sampling, seed, max_steps, assets, videos)
        for task in tasks
        for state in held_out(episodes, starts)
    ]


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

    callbacks.begin(len(rollouts.missing))
    if workers == 0:
        with _one_thread():
            for spec in rollouts.missing:
                keep(run_rollout(spec))
    elif rollouts.missing:
        with open_executor(workers, cluster, kept.parent, simulation_check(specs)) as executor:
            executor.on_repeat = lambda job, reason: callbacks.repeat(job.arguments[0], reason)
            run_jobs(executor, rollouts.jobs(), lambda outcome: keep(outcome.value))
    return rollouts.results()


class Rollouts:
    """Episodes, and which of them a file of finished ones lacks.

    Equal episodes of equal checkpoints run once, as the last of their specs, and share a result. Lines of other assets
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

    def jobs(self) -> list[Job]:
        """Return a job for each missing episode, whose value `keep` takes."""
        return [
            Job(
                f"episode {spec.checkpoint} {spec.suite} {spec.task} {spec.state}",
                run_rollout,
                (spec,),
                group=f"{spec.checkpoint} {spec.suite} {spec.task}",
                inputs=(spec.checkpoint,),
            )
            for spec in self.missing
        ]

    def keep(self, result: RolloutResult) -> None:
        """Append a result to the file."""
        self._file.append(result)
        self._results[result.spec] = result

    def results(self) -> list[RolloutResult]:
        """Return the results in the order of the specs, when none is missing."""
        return [self._results[self._once[self._file.key(spec)]] for spec in self.specs]


def simulation_check(specs: Sequence[RolloutSpec]) -> Callable[[], None]:
    """Return the check of a machine that is to run these episodes."""
    which = {(spec.suite, spec.assets) for spec in specs}
    return functools.partial(check_simulation, {pair: assets_of(*pair).identity() for pair in which})


class _EpisodeFile:
    """File of finished episodes, one line each, found by all that determines an episode."""

    def __init__(self, path: Path, specs: Sequence[RolloutSpec]):
        self._path = path
        self._ids = {folder: load_checkpoint(folder).id for folder in dict.fromkeys(spec.checkpoint for spec in specs)}
        suites = dict.fromkeys((spec.suite, spec.assets) for spec in specs)
        self._assets = {which: assets_of(*which).identity() for which in suites}
        self._versions = result_versions()
        lines = read_lines(path, EPISODE, "restore it from a copy, or remove it to run its episodes again")
        write_lines(path, lines)  # without an incomplete last line
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
        video = os.path.relpath(result.video, self._path.parent) if result.video else None
        outcome = {"success": result.success, "steps": result.steps, "held": result.held, "video": video}
        append_line(self._path, self._entries(result.spec) | outcome, EPISODE)

    def _entries(self, spec: RolloutSpec) -> dict:
        return {
            "checkpoint_id": self._ids[spec.checkpoint],
            "suite": spec.suite,
            "task": spec.task,
            "state": spec.state,
            "sampling": spec.sampling,
            "seed": spec.seed,
            "max_steps": spec.max_steps,
            "assets": self._assets[spec.suite, spec.assets],
            "versions": self._versions,
        }


def is_filmed(spec: RolloutSpec, success: bool) -> bool:
    """Return True for every failure, and for the first held-out start of every task."""
    return not success or spec.state in (HELD_OUT[0], CHOICE_FROM)


class _Cached:
    """Simulator and checkpoint that a process keeps between episodes."""

    env: "ArmEnv | None" = None
    env_key: tuple | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_path: Path | None = None


def run_rollout(spec: RolloutSpec) -> RolloutResult:
    """Run one episode in this process."""
    os.environ.setdefault("MUJOCO_GL", "egl")
    from m2distill_policy.control.inference import InferencePolicy
    from m2distill_sim.env_factory import make_env
    from m2distill_sim.video import write_video
    from m2distill_training.evaluation.rollout import run_episode

    if _Cached.checkpoint is None or _Cached.checkpoint_path != spec.checkpoint:
        _Cached.checkpoint, _Cached.checkpoint_path = load_checkpoint(spec.checkpoint), spec.checkpoint
    checkpoint = _Cached.checkpoint
    cameras = {camera.name: render_size(camera) for camera in checkpoint.spec.cameras}
    views = recorded_cameras(checkpoint.metrics)
    key = (spec.suite, spec.task, spec.assets, tuple(cameras.items()), views)
    if _Cached.env is None or _Cached.env_key != key:
        if _Cached.env is not None:
            _Cached.env.close()
        _Cached.env_key = None
        _Cached.env = make_env(spec.suite, spec.task, assets_of(spec.suite, spec.assets), cameras, views)
        _Cached.env_key = key
    policy = InferencePolicy(checkpoint, spec.sampling, seed=spec.seed * 1000 + spec.state)
    session = PolicySession(checkpoint.spec, policy, checkpoint.instructions)
    episode = run_episode(
        _Cached.env,
        session,
        _Cached.env.instruction,
        initial_state(spec.suite, spec.task, spec.state),
        spec.max_steps,
        record=spec.videos is not None,
        placement_seed=spec.state if spec.state >= DRAWN_FROM else None,
    )
    video = None
    if spec.videos is not None:
        spec.videos.mkdir(parents=True, exist_ok=True)
        name = f"{spec.suite}_task{spec.task}_state{spec.state}.mp4"
        for earlier in spec.videos.glob(f"*_{name}"):
            earlier.unlink()
        if is_filmed(spec, episode.success):
            video = spec.videos / f"{'success' if episode.success else 'failure'}_{name}"  # failures first, by name
            write_video(video, episode.frames, session.spec.rate_hz)
    return RolloutResult(spec, episode.success, episode.steps, episode.held, video)


def render_size(camera: CameraSpec) -> tuple[int, int]:
    """Return the (height, width) to render for a camera of the policy."""
    square = camera.height == camera.width
    return (max(camera.height, RENDER_PX),) * 2 if square else (camera.height, camera.width)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: processes are the parallelism, and sums have the same order on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
