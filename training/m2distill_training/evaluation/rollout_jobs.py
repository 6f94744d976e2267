"""Episodes of a checkpoint in simulation, each a function of its Job alone, and the file that keeps the finished ones.

They start from suites.held_out, demonstrations from suites.DEMO_STATES; no checkpoint is chosen by its success, so no
state is used both for choosing and for reporting.
"""

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
from m2distill_sim.suites import DRAWN_FROM, HELD_OUT, Task, assets_of, held_out, initial_state
from m2distill_training.execution.local_pool import run_in_workers
from m2distill_training.runs.provenance import packages
from m2distill_training.runs.run_folder import append_line, read_lines, write_lines
from m2distill_training.utils.schemas import is_count, is_text, optional

if TYPE_CHECKING:  # it imports the renderer, which chooses its platform once and for all
    from m2distill_sim.arm_env import ArmEnv

RENDER_PX = 128  # least side drawn, as in demonstrations and on the simulator's topics: one door makes it smaller
LONGEST_NAME = 255  # bytes
VERSIONS = ("torch", "numpy", "mujoco", "robosuite", "hf-libero", "opencv-python")  # what a result may depend on


def is_video(value: Any) -> bool:
    """A film's path, relative to the file that names it."""
    return (
        is_text(value)
        and not value.startswith("/")
        and value.endswith(".mp4")
        and all(len(name.encode()) <= LONGEST_NAME for name in value.split("/"))
    )


EPISODE = {"success": bool, "steps": is_count, "held": str, "video": optional(is_video)}  # a line of those kept


@dataclass(frozen=True)
class RolloutSpec:
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
    job: RolloutSpec
    success: bool
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    video: Path | None = None


@dataclass(frozen=True)
class ProgressCallbacks:
    """What is told while episodes run; the last in `total` are those that still have to be run."""

    begin: Callable[[int], None] = lambda total: None
    result: Callable[[RolloutResult], None] = lambda result: None
    repeat: Callable[[RolloutSpec, str], None] = lambda job, reason: None


def make_jobs(
    checkpoint: Path,
    tasks: Sequence[Task],
    episodes: int,
    sampling: str,
    seed: int,
    max_steps: int,
    assets: str | None,
    videos: Path | None,
) -> list[RolloutSpec]:
    """The first `episodes` held-out starts of every task. Raises UserError for a task named twice, and for numbers out
    of range."""
    require_at_least(1, episodes=episodes, max_steps=max_steps)
    require_at_least(0, seed=seed)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(
            f"tasks {[task.index for task in tasks]} given, expected at least one and none twice: an "
            "episode repeated is no further evidence"
        )
    return [
        RolloutSpec(checkpoint, task.suite, task.index, state, sampling, seed, max_steps, assets, videos)
        for task in tasks
        for state in held_out(episodes)
    ]


def run_jobs(
    jobs: Sequence[RolloutSpec], workers: int, kept: Path, listener: ProgressCallbacks = ProgressCallbacks()
) -> list[RolloutResult]:
    """Results in the order of `jobs`: those in the file `kept` from there, the others run now and added to it.

    Equal episodes of equal checkpoints run once, as the last of their jobs, and share a Result. Those of other assets
    or versions do not count. A video that should be there and is not, or shows a later episode of the same name, makes
    its episode run again. `workers`: processes; 0: in this one, where a debugger can follow and
    a crash is a crash. Raises UserError.
    """
    require_at_least(0, workers=workers)
    ids = {folder: load_checkpoint(folder).id for folder in dict.fromkeys(job.checkpoint for job in jobs)}
    assets = {which: assets_of(*which).identity() for which in dict.fromkeys((job.suite, job.assets) for job in jobs)}
    installed = versions()

    def key(job: RolloutSpec) -> dict:
        return {
            "checkpoint_id": ids[job.checkpoint],
            "suite": job.suite,
            "task": job.task,
            "state": job.state,
            "sampling": job.sampling,
            "seed": job.seed,
            "max_steps": job.max_steps,
            "assets": assets[job.suite, job.assets],
            "versions": installed,
        }

    def keep(result: RolloutResult) -> None:
        video = os.path.relpath(result.video, kept.parent) if result.video else None
        append_line(
            kept,
            {**key(result.job), "success": result.success, "steps": result.steps, "held": result.held, "video": video},
        )
        listener.result(result)

    def finished(job: RolloutSpec) -> RolloutResult | None:
        line = lines.get(labelled[job])
        if line is None:
            return None
        video = kept.parent / line["video"] if films.get(line["video"]) is line else None
        if job.videos and is_filmed(job, line["success"]) and not (video and video.is_file()):
            return None
        return RolloutResult(job, line["success"], line["steps"], line["held"], video)

    whole = read_lines(kept, EPISODE, "restore it from a copy, or remove it to run its episodes again")
    write_lines(kept, whole)  # without a last line cut short
    names = list(key(jobs[0]))
    films = {line["video"]: line for line in whole if line["video"]}
    lines = {json.dumps({name: line.get(name) for name in names}): line for line in whole}
    labelled = {job: json.dumps(key(job)) for job in jobs}
    once = {label: job for job, label in labelled.items()}
    results = {job: result for job in once.values() if (result := finished(job))}
    missing = [job for job in once.values() if job not in results]
    listener.begin(len(missing))
    if workers == 0:
        with _one_thread():
            for job in missing:
                results[job] = run_job(job)
                keep(results[job])
    elif missing:
        done = run_in_workers(_run_in_worker, missing, workers, on_result=keep, on_repeat=listener.repeat)
        results |= dict(zip(missing, done, strict=True))
    return [results[once[labelled[job]]] for job in jobs]


def versions() -> dict[str, str | None]:
    """Of the libraries that a result may depend on; None: not installed."""
    installed = packages()
    return {name: installed.get(name) for name in VERSIONS}


def is_filmed(job: RolloutSpec, success: bool) -> bool:
    """Every failure, and the first held-out state of every task."""
    return not success or job.state == HELD_OUT[0]


class _Stage:
    """What a process keeps between jobs: its simulator and its checkpoint, each made anew only when it must change."""

    env: "ArmEnv | None" = None
    env_key: tuple | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_path: Path | None = None


def run_job(job: RolloutSpec) -> RolloutResult:
    os.environ.setdefault("MUJOCO_GL", "egl")
    from m2distill_policy.control.inference import InferencePolicy
    from m2distill_sim.env_factory import make_env
    from m2distill_sim.video import write_video
    from m2distill_training.evaluation.rollout import run_episode

    if _Stage.checkpoint is None or _Stage.checkpoint_path != job.checkpoint:
        _Stage.checkpoint, _Stage.checkpoint_path = load_checkpoint(job.checkpoint), job.checkpoint
    checkpoint = _Stage.checkpoint
    cameras = {camera.name: render_size(camera) for camera in checkpoint.spec.cameras}
    views = recorded_cameras(checkpoint.metrics)
    key = (job.suite, job.task, job.assets, tuple(cameras.items()), views)
    if _Stage.env is None or _Stage.env_key != key:
        if _Stage.env is not None:
            _Stage.env.close()
        _Stage.env_key = None
        _Stage.env = make_env(job.suite, job.task, assets_of(job.suite, job.assets), cameras, views)
        _Stage.env_key = key
    policy = InferencePolicy(checkpoint, job.sampling, seed=job.seed * 1000 + job.state)
    session = PolicySession(checkpoint.spec, policy, checkpoint.instructions)
    episode = run_episode(
        _Stage.env,
        session,
        _Stage.env.instruction,
        initial_state(job.suite, job.task, job.state),
        job.max_steps,
        record=job.videos is not None,
        placement_seed=job.state if job.state >= DRAWN_FROM else None,
    )
    video = None
    if job.videos is not None:
        job.videos.mkdir(parents=True, exist_ok=True)
        name = f"{job.suite}_task{job.task}_state{job.state}.mp4"
        for earlier in job.videos.glob(f"*_{name}"):
            earlier.unlink()
        if is_filmed(job, episode.success):
            video = job.videos / f"{'success' if episode.success else 'failure'}_{name}"  # failures first, by name
            write_video(video, episode.frames, session.spec.rate_hz)
    return RolloutResult(job, episode.success, episode.steps, episode.held, video)


def render_size(camera: CameraSpec) -> tuple[int, int]:
    """(height, width) to draw for a camera of the policy."""
    square = camera.height == camera.width
    return (max(camera.height, RENDER_PX),) * 2 if square else (camera.height, camera.width)


def _run_in_worker(job: RolloutSpec) -> RolloutResult:
    with _one_thread():
        return run_job(job)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One process per core is the parallelism, and sums are added in one order whatever the machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
