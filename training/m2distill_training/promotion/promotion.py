"""Which checkpoint of a run the robot follows: promoted only with a proof that no earlier task was lost; rolled back.

    current               a link to the promoted checkpoint, moved in one go; a policy node may follow it
    promotions.jsonl      every promotion and rollback: when, to which checkpoint, with which proof, forced or not
    stages/<n>/proof.json  what was measured of stage n, and against what

The record is written first, and is the truth: where a process was killed before the link followed, the next promotion
or rollback moves the link to where the record says.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.utils.files import fsync_path
from m2distill_training.promotion.gate import TaskCheck, Thresholds, check_forgetting
from m2distill_training.runs.run_folder import RunError, RunFolder, locked, read_lines, read_run, write_lines
from m2distill_training.utils.schemas import is_count


class PromotionRejected(RunError):
    """A checkpoint did not pass the check for forgetting."""

    exit_status = 1


@dataclass(frozen=True)
class Promotion:
    stage: int
    checkpoint_id: str
    findings: list[TaskCheck]
    forced: bool


def promote(
    path: Path, stage: int | None = None, *, bars: Thresholds, suites: Sequence[str], force: bool = False, **simulation
) -> Promotion:
    """Move `current` to the checkpoint of `stage` (the last one) when every task passes; `simulation` goes to
    evaluate.evaluate_checkpoint. With `force` it moves all the same, and that is recorded. Raises UserError."""
    read_run(path)
    run = RunFolder(path)
    with _recorded(path):
        stage = _last_stage(run) if stage is None else stage
        folder = run.checkpoint(stage)
        checkpoint = load_checkpoint(folder)
        before = current(path)
        if before is None and stage > 1:
            before = stage - 1
        findings = check_forgetting(run, stage, before, bars, suites, **simulation)
        run.write_json(
            f"stages/{stage}/proof.json",
            {
                "checkpoint_id": checkpoint.id,
                "against_stage": before,
                "bars": asdict(bars),
                "findings": [asdict(f) for f in findings],
            },
        )
        failed = [f for f in findings if not f.passed]
        if failed and not force:
            raise PromotionRejected(
                f"stage {stage} is not promoted: " + "; ".join(f.told() for f in failed) + f". The proof is "
                f"{folder.parent / 'proof.json'}; learn with more replay or stronger distillation, or "
                "record --force"
            )
        _record(path, "promote", stage, checkpoint.id, forced=bool(failed))
        _move(path, stage)
        return Promotion(stage, checkpoint.id, findings, bool(failed))


def rollback(path: Path) -> int:
    """Move `current` back to what was promoted before it; its stage. Raises RunError."""
    read_run(path)
    with _recorded(path):
        stack = _stack(path)
        if len(stack) < 2:
            raise RunError(
                f"{path} has no promotion to go back to: {len(stack)} checkpoint(s) were promoted and not rolled back"
            )
        stage = stack[-2]
        checkpoint = load_checkpoint(
            RunFolder(path).checkpoint(stage)
        )  # a damaged one is refused before anything moves
        _record(path, "rollback", stage, checkpoint.id, forced=False)
        _move(path, stage)
        return stage


def current(path: Path) -> int | None:
    """The stage that `current` points to; None before the first promotion."""
    link = path / "current"
    if not link.is_symlink():
        return None
    name = Path(os.readlink(link)).parent.name
    if not name.isdecimal():
        raise RunError(f"{link} points to {os.readlink(link)}, expected stages/<number>/checkpoint; remove it")
    return int(name)


def _stack(path: Path) -> list[int]:
    """The promoted stages that have not been rolled back, oldest first."""
    stack: list[int] = []
    for line in read_lines(path / "promotions.jsonl", {"action": str, "stage": is_count}):
        if line["action"] == "rollback":
            if not stack:
                raise RunError(f"{path / 'promotions.jsonl'} is damaged: it goes back further than it began")
            stack.pop()
        elif stack[-1:] != [line["stage"]]:  # promoted once more: nothing new to go back from
            stack.append(line["stage"])
    return stack


def _last_stage(run: RunFolder) -> int:
    n = len(list((run.path / "stages").glob("*")))
    stages = [stage for stage in range(1, n + 1) if run.checkpoint(stage).is_dir()]
    if not stages:
        raise RunError(f"{run.path} holds no finished stage yet; train it first")
    return stages[-1]


def _move(path: Path, stage: int) -> None:
    temporary = path / f".current.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(Path("stages", str(stage), "checkpoint"))
    temporary.replace(path / "current")
    fsync_path(path)


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
    """While this process alone may promote: `current` is where the record says."""
    with locked(path / "promotion.lock", f"another process is promoting in {path}; wait for it"):
        if (stack := _stack(path)) and current(path) != stack[-1]:
            _move(path, stack[-1])
        yield
