"""Promotion of a run's checkpoint to the robot, after a proof that no earlier task was lost, and rollback.

    current                link to the promoted checkpoint, replaced atomically; a policy node can follow it
    promotions.jsonl       every promotion and rollback: when, to which checkpoint, forced or not
    stages/<n>/proof.json  the checks of stage n, and the stage that it was compared with

The record is written before the link is moved, and takes precedence: if a process is killed in between, the next
promotion or rollback moves the link to the recorded stage.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.robot import robot_from_settings
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.utils.files import fsync_path
from m2distill_training.promotion.gate import TaskCheck, Thresholds, check_forgetting
from m2distill_training.runs.records import RunError, locked, read_lines, write_lines, writing
from m2distill_training.runs.run_folder import RunFolder, read_run
from m2distill_training.utils.schemas import is_count

RECORDED = ("episodes", "sampling", "max_steps", "environments", "assets")  # options of the simulation, in the proof


class PromotionRejected(RunError):
    """A checkpoint did not pass the check for forgetting."""

    exit_status = 1


@dataclass(frozen=True)
class Promotion:
    """A promotion that has been made."""

    stage: int
    checkpoint_id: str
    checks: list[TaskCheck]
    forced: bool


def promote(
    path: Path,
    stage: int | None = None,
    *,
    thresholds: Thresholds,
    suites: Sequence[str],
    force: bool = False,
    arm: str | None = None,
    **simulation,
) -> Promotion:
    """Move `current` to the checkpoint of a stage if every task passes its check.

    Args:
        path: the run folder.
        stage: number of the stage, from 1; default: the last one.
        thresholds: what the checkpoint must reach.
        suites: where the simulations of tasks are looked up.
        force: move it in spite of failed checks; that is recorded.
        arm: preset or arm file of the robot; a checkpoint of another robot is rejected, also with `force`.
        **simulation: options of evaluate_checkpoint.

    Raises:
        UserError: a check failed, or the run folder does not permit it.
    """
    read_run(path)
    run = RunFolder(path)
    with _recorded(path):
        stage = _last_stage(run) if stage is None else stage
        folder = run.checkpoint(stage)
        checkpoint = load_checkpoint(folder)
        if arm is not None:
            robot_from_settings(load_arm(arm)).check(checkpoint.spec, arm)
        _new_link(path, stage).unlink()  # before the long proof: a file system may have no links
        before = current(path)
        if before is None and stage > 1:
            before = stage - 1
        checks = check_forgetting(run, stage, before, thresholds, suites, **simulation)
        run.write_json(
            f"stages/{stage}/proof.json",
            {
                "checkpoint_id": checkpoint.id,
                "against_stage": before,
                "thresholds": asdict(thresholds),
                "simulation": {name: simulation[name] for name in RECORDED if name in simulation},
                "checks": [asdict(check) for check in checks],
            },
        )
        failed = [check for check in checks if not check.passed]
        if failed and not force:
            raise PromotionRejected(
                f"stage {stage} is not promoted: "
                + "; ".join(check.describe() for check in failed)
                + f". The proof is "
                f"{folder.parent / 'proof.json'}; test with more --episodes, record more and repeat "
                "m2distill learn with --again, or deploy it all the same with --force, which is recorded"
            )
        _record(path, "promote", stage, checkpoint.id, forced=bool(failed))
        _move(path, stage)
        return Promotion(stage, checkpoint.id, checks, bool(failed))


def rollback(path: Path) -> int:
    """Move `current` back to the previously promoted checkpoint and return its stage. Raises RunError."""
    read_run(path)
    with _recorded(path):
        stack = _stack(path)
        if len(stack) < 2:
            raise RunError(
                f"{path} has no promotion to go back to: {len(stack)} checkpoint(s) were promoted and not rolled back"
            )
        stage = stack[-2]
        checkpoint = load_checkpoint(RunFolder(path).checkpoint(stage))  # rejects a damaged one before anything moves
        _record(path, "rollback", stage, checkpoint.id, forced=False)
        _move(path, stage)
        return stage


def current(path: Path) -> int | None:
    """Return the stage that `current` points to; None before the first promotion."""
    link = path / "current"
    if not link.is_symlink():
        return None
    name = Path(os.readlink(link)).parent.name
    if not name.isdecimal():
        raise RunError(f"{link} points to {os.readlink(link)}, expected stages/<number>/checkpoint; remove it")
    return int(name)


def _stack(path: Path) -> list[int]:
    """Return the promoted stages that have not been rolled back, oldest first."""
    stack: list[int] = []
    for line in read_lines(path / "promotions.jsonl", {"action": str, "stage": is_count}):
        if line["action"] == "rollback":
            if not stack:
                raise RunError(f"{path / 'promotions.jsonl'} is damaged: it holds more rollbacks than promotions")
            stack.pop()
        elif stack[-1:] != [line["stage"]]:  # a repeated promotion adds nothing to roll back
            stack.append(line["stage"])
    return stack


def _last_stage(run: RunFolder) -> int:
    n = len(list((run.path / "stages").glob("*")))
    stages = [stage for stage in range(1, n + 1) if run.checkpoint(stage).is_dir()]
    if not stages:
        raise RunError(f"{run.path} holds no finished stage yet; train it first")
    return stages[-1]


def _move(path: Path, stage: int) -> None:
    link = _new_link(path, stage)
    with writing(path / "current"):
        link.replace(path / "current")
        fsync_path(path)


def _new_link(path: Path, stage: int) -> Path:
    """Return a link to a stage's checkpoint under a temporary name. Raises RunError if the file system has no links."""
    temporary = path / f".current.{os.getpid()}"
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("stages", str(stage), "checkpoint"))
    except OSError as error:
        raise RunError(
            f"{path} cannot hold the link `current` ({error.strerror}), by which a robot follows the run; copy the run "
            "to a file system with symbolic links, or give the robot a checkpoint with --checkpoint"
        ) from None
    return temporary


def _record(path: Path, action: str, stage: int, checkpoint_id: str, forced: bool) -> None:
    write_lines(
        path / "promotions.jsonl",
        [
            *read_lines(path / "promotions.jsonl"),
            {
                "action": action,
                "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "stage": stage,
                "checkpoint_id": checkpoint_id,
                "forced": forced,
            },
        ],
    )


@contextmanager
def _recorded(path: Path) -> Iterator[None]:
    """Hold the promotion lock, with `current` moved to the recorded stage."""
    with locked(path / "promotion.lock", f"another process is promoting in {path}; wait for it"):
        if (stack := _stack(path)) and current(path) != stack[-1]:
            _move(path, stack[-1])
        yield
