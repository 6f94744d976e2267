"""Episodes to run, and their results. Each episode depends only on its RolloutSpec.

Episodes start from suites.held_out, demonstrations from suites.DEMO_STATES. No checkpoint is selected by its success,
so no state serves both selection and reporting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.errors import UserError, require_at_least
from m2distill_sim.suites import CHOICE_FROM, HELD_OUT, Task, held_out

ENVIRONMENTS = 4  # that share a forward pass by default: docs/evaluation.md has the measurement


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
    environments: int = 1  # that share one forward pass of the network; its sums depend on their number


@dataclass(frozen=True)
class RolloutResult:
    """Outcome of one episode."""

    spec: RolloutSpec
    success: bool
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    video: Path | None = None


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
    environments: int = 1,
) -> list[RolloutSpec]:
    """Return the specs of the first `episodes` held-out starts of every task; `starts` as in suites.held_out.

    Raises UserError for a repeated task and for numbers out of range.
    """
    require_at_least(1, episodes=episodes, max_steps=max_steps, environments=environments)
    require_at_least(0, seed=seed)
    if not tasks or len(set(tasks)) < len(tasks):
        raise UserError(
            f"tasks {[task.index for task in tasks]} given, expected at least one and none twice: a "
            "repeated episode is no further evidence"
        )
    return [
        RolloutSpec(checkpoint, task.suite, task.index, state, sampling, seed, max_steps, assets, videos, environments)
        for task in tasks
        for state in held_out(episodes, starts)
    ]


def is_filmed(spec: RolloutSpec, success: bool) -> bool:
    """Return True for every failure, and for the first held-out start of every task."""
    return not success or spec.state in (HELD_OUT[0], CHOICE_FROM)
