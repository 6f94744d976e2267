"""Episodes of one checkpoint and task in this process: one after the other, or several that share forward passes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from m2distill_policy.cameras import recorded_cameras
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.control.session import PolicySession
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import CameraSpec
from m2distill_sim.suites import DRAWN_FROM, assets_of, initial_state
from m2distill_training.evaluation.rollout_specs import RolloutResult, RolloutSpec, is_filmed

if TYPE_CHECKING:  # the first imports the renderer, which selects its platform at import, the others torch
    from m2distill_sim.arm_env import ArmEnv
    from m2distill_training.evaluation.batched_policy import BatchedPolicy
    from m2distill_training.evaluation.rollout import Episode

RENDER_PX = 128  # least side rendered, as in demonstrations and on the simulator's topics


class _Cached:
    """Simulators, checkpoint and network that a process keeps between jobs."""

    envs: "dict[int, ArmEnv]" = {}  # noqa: RUF012  # row of the batch -> simulator; the first one has the renderer
    env_key: tuple | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_path: Path | None = None
    batched: "BatchedPolicy | None" = None


def forget_checkpoint() -> None:
    """Read the checkpoint again for the next episodes."""
    _Cached.checkpoint = _Cached.checkpoint_path = _Cached.batched = None


def run_episodes(
    specs: Sequence[RolloutSpec], on_result: Callable[[RolloutResult], object] = lambda result: None
) -> list[RolloutResult]:
    """Run episodes of one checkpoint and task that differ in their start.

    With `environments` above 1, so many episodes are at work. They share forward passes, see batched_policy.py. An
    episode's place in the batch is its start's number modulo `environments`.

    Args:
        specs: the episodes.
        on_result: called with each result as it comes.

    Returns:
        The results in the order in which the episodes ended.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    checkpoint = _checkpoint(specs[0].checkpoint)
    rows = specs[0].environments
    results = []
    for spec, episode in _alone(checkpoint, specs) if rows == 1 else _batched(checkpoint, specs, rows):
        results.append(_result(spec, episode))
        on_result(results[-1])
    return results


def _alone(checkpoint: Checkpoint, specs: Sequence[RolloutSpec]):
    """Yield every episode when it has ended."""
    from m2distill_policy.control.inference import InferencePolicy

    for spec in specs:
        session = _session(checkpoint, InferencePolicy(checkpoint, spec.sampling, seed=_seed(spec)))
        episode = _begin(checkpoint, spec, session, 0)
        while episode.outcome is None:
            episode.take(session.tick(episode.feed()))
        yield spec, episode


def _batched(checkpoint: Checkpoint, specs: Sequence[RolloutSpec], rows: int):
    """Yield every episode when it has ended; the next one of its row begins."""
    from m2distill_training.evaluation.batched_policy import BatchedPolicy, EpisodePolicy

    if _Cached.batched is None or _Cached.batched.rows != rows:
        _Cached.batched = BatchedPolicy(checkpoint, rows)
    waiting: dict[int, list[RolloutSpec]] = {}
    for spec in specs:
        waiting.setdefault(spec.state % rows, []).append(spec)
    at_work: dict[int, tuple[RolloutSpec, Episode, EpisodePolicy]] = {}
    while waiting or at_work:
        for row in [row for row in waiting if row not in at_work]:
            spec = waiting[row].pop(0)
            policy = EpisodePolicy(checkpoint.spec.history, spec.sampling, _seed(spec))
            at_work[row] = spec, _begin(checkpoint, spec, _session(checkpoint, policy), row), policy
            if not waiting[row]:
                del waiting[row]
        live: dict[int, tuple[EpisodePolicy, Observation]] = {}
        for row, (_, episode, policy) in at_work.items():
            answer = episode.session.begin_tick(episode.feed())
            if isinstance(answer, Observation):
                live[row] = policy, answer
            else:
                episode.take(answer)
        samples = _Cached.batched.step(live) if live else {}
        for row, sample in samples.items():
            episode = at_work[row][1]
            episode.take(episode.session.end_tick(live[row][1], sample))
        for row in [row for row, (_, episode, _) in at_work.items() if episode.outcome is not None]:
            spec, episode, _ = at_work.pop(row)
            yield spec, episode


def _checkpoint(path: Path) -> Checkpoint:
    if _Cached.checkpoint is None or _Cached.checkpoint_path != path:
        forget_checkpoint()
        _Cached.checkpoint, _Cached.checkpoint_path = load_checkpoint(path), path
    return _Cached.checkpoint


def _session(checkpoint: Checkpoint, policy) -> PolicySession:
    return PolicySession(checkpoint.spec, policy, checkpoint.instructions)


def _seed(spec: RolloutSpec) -> int:
    return spec.seed * 1000 + spec.state


def _begin(checkpoint: Checkpoint, spec: RolloutSpec, session: PolicySession, row: int) -> "Episode":
    from m2distill_training.evaluation.rollout import Episode

    env = _env(checkpoint, spec, row)
    return Episode(
        env,
        session,
        env.instruction,
        initial_state(spec.suite, spec.task, spec.state),
        spec.max_steps,
        record=spec.videos is not None,
        placement_seed=spec.state if spec.state >= DRAWN_FROM else None,
    )


def _env(checkpoint: Checkpoint, spec: RolloutSpec, row: int) -> "ArmEnv":
    """Return the simulator of a row. Those of another task or other cameras are closed."""
    from m2distill_sim.env_factory import make_env

    cameras = {camera.name: render_size(camera) for camera in checkpoint.spec.cameras}
    views = recorded_cameras(checkpoint.metrics)
    key = (spec.suite, spec.task, spec.assets, tuple(cameras.items()), views)
    if _Cached.env_key != key:
        _Cached.env_key = None
        while _Cached.envs:  # the owner of the renderer last
            _Cached.envs.popitem()[1].close()
        _Cached.env_key = key
    if row not in _Cached.envs:
        twin = next(iter(_Cached.envs.values()), None)
        _Cached.envs[row] = make_env(spec.suite, spec.task, assets_of(spec.suite, spec.assets), cameras, views, twin)
    return _Cached.envs[row]


def _result(spec: RolloutSpec, episode: "Episode") -> RolloutResult:
    """Return the result of an episode that has ended, and write its video."""
    from m2distill_sim.video import write_video

    outcome, video = episode.outcome, None
    assert outcome is not None
    if spec.videos is not None:
        spec.videos.mkdir(parents=True, exist_ok=True)
        name = f"{spec.suite}_task{spec.task}_state{spec.state}.mp4"
        for earlier in spec.videos.glob(f"*_{name}"):
            earlier.unlink()
        if is_filmed(spec, outcome.success):
            video = spec.videos / f"{'success' if outcome.success else 'failure'}_{name}"  # failures first, by name
            write_video(video, outcome.frames(), episode.session.spec.rate_hz)
    return RolloutResult(spec, outcome.success, outcome.steps, outcome.held, video)


def render_size(camera: CameraSpec) -> tuple[int, int]:
    """Return the (height, width) to render for a camera of the policy."""
    square = camera.height == camera.width
    return (max(camera.height, RENDER_PX),) * 2 if square else (camera.height, camera.width)
