"""Functions of the public interface that join several of the packages' own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m2distill_policy.action import DEFAULT_SAMPLING
from m2distill_policy.cameras import CAMERAS, Camera
from m2distill_policy.errors import UserError
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_training.data.libero.reader import Demo, open_libero

__all__ = ["collect", "evaluate", "load_demos"]


def load_demos(path: str | Path, pairing: str = "before", cameras: Sequence[Camera] = CAMERAS) -> list[Demo]:
    """Return the demonstrations of a LIBERO-format HDF5 file, checked.

    Args:
        path: The file, of one task.
        pairing: "before" pairs an action with the observation before it; "as_stored" with the one of the same index.
        cameras: The views to read.

    Raises:
        UserError: The file is missing or damaged.
    """
    with open_libero(Path(path), pairing, cameras) as file:
        return list(file.demos())


def collect(
    suite: str,
    tasks: Sequence[int | str],
    demos: int,
    out: str | Path,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    seed: int = 0,
    image_size_px: int = 128,
    assets: str | None = None,
    cameras: Sequence[Camera] = CAMERAS,
    progress: bool = False,
) -> list[Path]:
    """Collect demonstrations of a scripted expert in simulation, as `m2distill collect` does.

    A script that calls this needs the usual guard `if __name__ == "__main__":`, because workers are new processes.

    Args:
        suite: Suite with a scripted expert.
        tasks: Numbers or names of tasks in the suite.
        demos: Successful demonstrations of each task.
        out: Folder of the files.
        workers: Processes, each with a simulator; default: 2, all CPUs of a cluster. The result does not depend on it.
        cluster: auto or HOST:PORT of a Ray cluster.
        seed: Seed of the expert's variation, of the disturbances and of the placements.
        image_size_px: Side of the images of cameras that state no size.
        assets: As for the option --assets; default: $M2DISTILL_ASSETS, else builtin.
        cameras: The views to record.
        progress: Print progress.

    Returns:
        The files in the order of `tasks`.

    Raises:
        UserError: An argument is out of range, or the assets are missing.
    """
    from m2distill_sim.assets import find_assets
    from m2distill_training.experiments.collect import collect as collect_demos

    return collect_demos(
        suite,
        tasks,
        demos,
        out,
        workers=workers,
        cluster=cluster,
        seed=seed,
        size_px=image_size_px,
        assets=find_assets(assets),
        cameras=cameras,
        progress=progress,
    )


def evaluate(
    path: str | Path,
    suite: str | Sequence[str] = DEFAULT_SUITE,
    *,
    tasks: Sequence[int] = (),
    episodes: int = 10,
    sampling: str = DEFAULT_SAMPLING,
    seed: int = 0,
    max_steps: int = 600,
    workers: int | None = None,
    cluster: str | None = None,
    assets: str | None = None,
    starts: str = "report",
    environments: int = 4,
    out: str | Path | None = None,
) -> dict:
    """Run closed-loop episodes in simulation and return the success rates, as `m2distill evaluate` does.

    With workers other than 0 a script needs the guard `if __name__ == "__main__":`.

    Args:
        path: A run folder, whose checkpoints are evaluated on every task learned so far, or a checkpoint.
        suite: The suite of the tasks; several for a run folder.
        tasks: Numbers of tasks, for a checkpoint; default: those that it knows.
        episodes: Episodes per task, from starts that no demonstration used.
        sampling: stochastic, low_noise or mode.
        seed: Seed of the policy's samples.
        max_steps: Steps after which an episode has failed.
        workers: Processes, each with a simulator; default: 2, all CPUs of a cluster; 0: this process.
        cluster: auto or HOST:PORT of a Ray cluster.
        assets: As for the option --assets; default: $M2DISTILL_ASSETS, else builtin.
        starts: "report", or "choice" for starts that are never reported.
        environments: Simulators per process that share one pass of the policy's network.
        out: For a checkpoint, the folder of the result; default: CHECKPOINT_evaluation beside it.

    Returns the content of evaluation.json. Raises UserError if the path holds neither, or an argument does not fit.
    """
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_sim.suites import find_task
    from m2distill_training.evaluation.evaluate import evaluate_checkpoint, evaluate_run
    from m2distill_training.evaluation.run_specs import find_tasks

    path, suites = Path(path), [suite] if isinstance(suite, str) else list(suite)
    simulation: dict[str, Any] = {"sampling": sampling, "seed": seed, "max_steps": max_steps, "assets": assets}
    simulation |= {"workers": workers, "cluster": cluster, "starts": starts, "environments": environments}
    if (path / "data.json").is_file():
        if tasks or out:
            raise UserError(f"{path} is a run folder: all its tasks are evaluated in it; leave tasks and out away")
        return evaluate_run(path, suites, episodes, **simulation)
    if tasks and len(suites) != 1:
        raise UserError(f"tasks are numbers of one suite, got {len(suites)} suites; name the one they are in")
    known = load_checkpoint(path)
    chosen = [find_task(suites[0], task) for task in tasks] or find_tasks(suites, known.instructions, known.task_names)
    folder = Path(out) if out else path.with_name(f"{path.name}_evaluation")
    return evaluate_checkpoint(path, chosen, episodes, folder, **simulation)
