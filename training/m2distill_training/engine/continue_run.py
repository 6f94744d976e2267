"""One more task for a run: the step that continual retraining repeats.

The teacher is the run's last checkpoint, and what is replayed comes from the run's own memory: the files of earlier
tasks are not needed any more. A killed process goes on where its last saved state was when the command is repeated.

    steps/<k>/learn.json   what the step was begun with; a repeated command must agree with it
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.language.text_encoder import load_text_encoder
from m2distill_policy.models import Policy
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.data.windows import DemoSubset
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.engine.protocols import lesson
from m2distill_training.engine.train import deferred_interrupt, save_task
from m2distill_training.engine.trainer import Progress, Trainer
from m2distill_training.runs.run_folder import RunError, RunFolder, open_run, read_json, read_run


def learn(
    path: Path,
    dataset: Path,
    *,
    strategy: str = "m2distill",
    held_out: int = 1,
    instruction: str | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> int:
    """The run `path` learns the task of `dataset`; the number of the step, whose checkpoint is in steps/. Of the demos
    `held_out` are kept back, to judge this and later steps by. `instruction` replaces the file's. Raises UserError."""
    config, data = read_run(path)
    with open_run(path, config, data, resume=True) as run, deferred_interrupt() as interrupted:
        k = _steps(run)
        previous = load_checkpoint(run.checkpoint(k - 1))
        store = open_store(dataset, previous.spec, config.pairing, cache, config.cameras)
        store = dataclasses.replace(store, instruction=instruction or store.instruction)
        if store.n_demos <= held_out:
            raise RunError(
                f"{dataset} holds {store.n_demos} demos, of which {held_out} would be held out; record more "
                "or lower --held-out"
            )
        begun = {"strategy": strategy, "held_out": held_out, "key": store.key, "instruction": store.instruction}
        earlier = _begin(run, k, begun, [d for d in data if d["instruction"] in previous.instructions], data, store)
        chosen = lesson(len(earlier), store.n_demos, store.n_demos - held_out, held_out, config.seed)
        text = load_text_encoder(config.text_encoder).encode([store.instruction])[0]
        new = DemoSubset(store, text, chosen.demos)
        old = [load_task_memory(run.memory(i, "replay"), d) for i, d in enumerate(earlier)]
        policy = Policy(previous.model_config, previous.spec)
        policy.load_state_dict(previous.state_dict)
        config = config.with_strategy(strategy)
        learner = Trainer(
            config, previous.spec, device, k, [old, *([[]] * (k - 1)), [new]], policy, run, DistributedContext()
        )
        learner.run(k + 1, on_step, interrupted)
        save_task(run, chosen, new, config)
        learner.finish(interrupted)
        return k


def _steps(run: RunFolder) -> int:
    k = 0
    while run.checkpoint(k).is_dir():
        k += 1
    if k == 0:
        raise RunError(f"{run.path} has learned nothing yet; finish its training with m2distill train --resume")
    return k


def _begin(run: RunFolder, k: int, begun: dict, learned: list[dict], data: list[dict], store: Store) -> list[dict]:
    """Check that step k can be the one asked for, and record it; the datasets of the earlier tasks."""
    record = run.path / "steps" / str(k) / "learn.json"
    unlearned = [d["instruction"] for d in data if d not in learned]
    if record.is_file():
        if (before := read_json(record, {"instruction": str})) != begun:
            raise RunError(
                f"{run.path} is in the middle of learning {before['instruction']!r} with {before}; repeat "
                f"that, or remove {record.parent} and the task's entry in data.json to give it up"
            )
        unlearned = [text for text in unlearned if text != begun["instruction"]]
    if unlearned:
        raise RunError(
            f"{run.path} has not learned {unlearned[0]!r} yet; finish its training with m2distill train "
            "--resume. (A packnet run cannot learn further tasks so: its checkpoints know one step's each.)"
        )
    if any(d["instruction"] == begun["instruction"] for d in learned):
        raise RunError(
            f"{run.path} knows {begun['instruction']!r} already; give the new task an instruction of its "
            "own with --instruction"
        )
    if not record.is_file():
        run.forget_memory(len(learned))  # of a task that was given up here, after its memory had been written
    run.write_json(str(record.relative_to(run.path)), begun)
    entry = {"path": str(store.source), "key": store.key, "instruction": store.instruction, "demos": store.n_demos}
    run.write_json("data.json", [*learned, entry])
    return learned
