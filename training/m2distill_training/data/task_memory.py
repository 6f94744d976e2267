"""Memory of a run's tasks, so that it can learn further ones without the original files.

    memory/<task>/replay/    demos that later stages may replay: a beginning of the task's replay order (replay.py)
    memory/<task>/held_out/  demos that no stage learned, to test later stages without a simulation

Each is a store (data/store.py) with two more files: task.json and the instruction's embedding.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from m2distill_policy.errors import DataError
from m2distill_policy.utils.files import new_folder, publish_folder
from m2distill_policy.utils.schema import with_schema, without_schema
from m2distill_training.data.store import Store, check_arrays
from m2distill_training.data.windows import DemoSubset
from m2distill_training.utils.schemas import fits, is_count


def save_task_memory(folder: Path, subset: DemoSubset, demos: Sequence[int]) -> None:
    """Write some demos of `subset`, in that order, as the store `folder`, completely or not at all.

    An existing folder is kept. Raises DataError.
    """
    if folder.is_dir():
        return
    store = subset.store
    rows = [np.arange(store.bounds[d], store.bounds[d + 1]) for d in demos]
    frames = np.concatenate(rows)
    arrays = {name: getattr(store, name)[frames] for name in ("joint", "gripper", "action")}
    arrays |= {f"image_{name}": images[frames] for name, images in store.images.items()}
    arrays |= {"bounds": np.cumsum([0, *map(len, rows)]), "text": subset.text}
    task = {"instruction": store.instruction, "source": str(store.source), "key": store.key, "demos": list(demos)}
    try:
        with new_folder(folder) as temporary:
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array)
            (temporary / "task.json").write_text(json.dumps(with_schema(task), indent=2))
            publish_folder(temporary, folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}); make room and repeat the command") from None


def load_task_memory(folder: Path, dataset: dict, cameras: Sequence[str]) -> DemoSubset:
    """Return all demos that `save_task_memory` wrote of a task.

    Args:
        folder: The memory.
        dataset: The task, an entry of data.json.
        cameras: Names of the cameras that the policy needs.

    Raises:
        DataError: The memory is missing, damaged, or of another task.
    """
    try:
        task = without_schema(json.loads((folder / "task.json").read_text()), folder / "task.json")
        if not fits(task, {"source": str, "key": str, "instruction": str, "demos": [is_count]}):
            raise ValueError("task.json is not what a run writes")
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        images = {name: arrays[f"image_{name}"] for name in cameras}
        store = Store(
            Path(task["source"]),
            task["key"],
            task["instruction"],
            images,
            *(arrays[name] for name in ("joint", "gripper", "action", "bounds")),
        )
        check_arrays(store)
        if arrays["text"].ndim != 1 or arrays["text"].dtype != np.float32:
            raise ValueError("text.npy is no embedding")
        if len(task["demos"]) != store.n_demos:
            raise ValueError("task.json does not number its demos")
        subset = DemoSubset(store, np.array(arrays["text"]), numbers=tuple(task["demos"]))
    except (OSError, EOFError, ValueError, KeyError, RecursionError, TokenError) as error:  # numpy tokenizes headers
        raise DataError(f"{folder} is damaged or missing ({error}); restore it from a copy") from None
    if (store.instruction, store.key) != (dataset["instruction"], dataset["key"]):
        raise DataError(
            f"{folder} holds demos of {store.instruction!r}, expected {dataset['instruction']!r} from "
            f"{dataset['path']} as the run learned it; restore it from a copy"
        )
    return subset
