"""The demonstration file of each task of a LIBERO suite."""

from collections.abc import Sequence
from pathlib import Path

from m2distill_policy.errors import DataError
from m2distill_policy.language.instruction_text import normalise
from m2distill_sim.suites import Task, find_task, suites
from m2distill_training.data.libero.reader import open_libero


def in_suite_order(files: Sequence[Path], suite: str, tasks: Sequence[int] = ()) -> tuple[list[Path], list[str]]:
    """Return the file of each of the suite's tasks, and the tasks' instructions.

    A file belongs to the task whose name is in the file's name (LIBERO's `<task>_demo.hdf5`), or else to the task that
    it names or whose instruction it holds. The suite's instructions replace the files': LIBERO's downloads word some of
    them otherwise ("Pick the akita black bowl ..."), and LIBERO trains and evaluates with the suite's.

    Args:
        files: demonstration files in any order.
        suite: name of the suite.
        tasks: task numbers in the order to return; empty: all tasks of the suite.

    Raises:
        UserError: for an unknown suite or task, and for a task with no file or several.
    """
    find_task(suite, 0)  # rejects an unknown suite
    chosen = [find_task(suite, index) for index in tasks] or list(suites()[suite])
    found = [_file_of(task, files) for task in chosen]
    return found, [task.instruction for task in chosen]


def _file_of(task: Task, files: Sequence[Path]) -> Path:
    named = [path for path in files if path.stem.removesuffix("_demo") == task.name]
    matching = named or [path for path in files if _is_of(path, task)]
    if len(matching) != 1:
        raise DataError(
            f"{task.suite} needs one file for task {task.index}, {task.name}_demo.hdf5 or one that holds "
            f"{task.instruction!r}; got {len(matching)} among the {len(files)} files given"
        )
    return matching[0]


def _is_of(path: Path, task: Task) -> bool:
    with open_libero(path, "as_stored") as file:
        same = normalise(file.instruction) == normalise(task.instruction)
        return file.task == task.full_name if file.task else same
