"""The last stage of a run in place of another one: its task is learned again, from more or better demonstrations.

replaced/<stage>_<time>/   the folder of a stage whose task was learned again; nothing reads it
"""

import time
from pathlib import Path

from m2distill_training.runs.records import RunError, read_json, read_lines, writing
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.utils.schemas import is_count


def set_aside(run: RunFolder, finished: int, settings: dict) -> int:
    """Move the stage that learned an instruction to replaced/; return the number of finished stages that are left.

    A stage that was begun with these demonstrations is left, so that a repeated command continues it.

    Args:
        run: run folder, which the caller has locked.
        finished: number of finished stages.
        settings: what would be in the learn.json of the new stage.

    Raises:
        RunError: the instruction is not the last one that the run learned, these demonstrations have been learned, or
            the stage has been deployed.
    """
    begun = run.stage_folder(finished + 1) / "learn.json"
    stage = finished + 1 if begun.is_file() else finished
    before = _settings(run.stage_folder(stage))
    if before["instruction"] != settings["instruction"]:
        aside = [_settings(path)["instruction"] for path in (run.path / "replaced").glob(f"{finished + 1}_*")]
        if stage == finished and settings["instruction"] in aside:
            return finished  # killed before the new stage began
        raise RunError(
            f"{run.path} learned {before['instruction'] or 'the tasks of m2distill train'!r} last, and only that can "
            f"be learned again; leave --again out to learn {settings['instruction']!r}"
        )
    if before == settings:
        if stage > finished:
            return finished
        raise RunError(
            f"{run.path} has learned {settings['instruction']!r} from these demonstrations already; record more and "
            "import all of them together"
        )
    if stage in {line["stage"] for line in read_lines(run.path / "promotions.jsonl", {"stage": is_count})}:
        raise RunError(
            f"stage {stage} of {run.path} was deployed, so it is not replaced; give the task an instruction of its own "
            "with --instruction"
        )
    _move(run, stage)
    return stage - 1


def _settings(folder: Path) -> dict:
    """Return the content of learn.json; that of a stage of m2distill train has no instruction."""
    path = folder / "learn.json"
    return read_json(path, {"instruction": str}) if path.is_file() else {"instruction": ""}


def _move(run: RunFolder, stage: int) -> None:
    target = run.path / "replaced" / f"{stage}_{time.strftime('%Y%m%d_%H%M%S')}_{time.time_ns() % 10**9:09d}"
    with writing(target):
        target.parent.mkdir(exist_ok=True)
        run.stage_folder(stage).rename(target)
