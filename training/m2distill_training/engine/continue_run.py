"""One more task for a run: the stage that continual retraining repeats.

The teacher is the run's last checkpoint, and what is replayed comes from the run's own memory: the files of earlier
tasks are not needed any more. A killed process goes on where its last saved state was when the command is repeated.

    stages/<n>/learn.json   what the stage was begun with; a repeated command must agree with it
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
    """Learn the task of `dataset` in the run `path` and return the number of the stage.

    Args:
        path: run folder; the new checkpoint is in its stages/.
        dataset: LIBERO-format file with demonstrations of the new task.
        strategy: name of the strategy for this stage.
        held_out: number of demos to hold out, to test this and later stages.
        instruction: replaces the instruction in the file.
        device: device of the training.
        cache: folder of the decoded frames; default: beside the file.
        on_step: called after every gradient step.

    Raises:
        UserError: the data, the settings or the run folder do not permit it.
    """
    config, data = read_run(path)
    with open_run(path, config, data, resume=True) as run, deferred_interrupt() as interrupted:
        stage = _finished_stages(run) + 1
        previous = load_checkpoint(run.checkpoint(stage - 1))
        store = open_store(dataset, previous.spec, config.pairing, cache, config.cameras)
        store = dataclasses.replace(store, instruction=instruction or store.instruction)
        if store.n_demos <= held_out:
            raise RunError(
                f"{dataset} holds {store.n_demos} demos, of which {held_out} would be held out; record more "
                "or lower --held-out"
            )
        begun = {"strategy": strategy, "held_out": held_out, "key": store.key, "instruction": store.instruction}
        earlier = _begin(run, stage, begun, [d for d in data if d["instruction"] in previous.instructions], data, store)
        chosen = lesson(len(earlier), store.n_demos, store.n_demos - held_out, held_out, config.seed)
        text = load_text_encoder(config.text_encoder).encode([store.instruction])[0]
        new = DemoSubset(store, text, chosen.demos)
        old = [load_task_memory(run.memory(i, "replay"), d) for i, d in enumerate(earlier)]
        policy = Policy(previous.model_config, previous.spec)
        policy.load_state_dict(previous.state_dict)
        config = config.with_strategy(strategy)
        learner = Trainer(
            config, previous.spec, device, stage, [old, *([[]] * (stage - 2)), [new]], policy, run, DistributedContext()
        )
        learner.run(stage, on_step, interrupted)
        save_task(run, chosen, new, config)
        learner.finish(interrupted)
        return stage


def _finished_stages(run: RunFolder) -> int:
    n = 0
    while run.checkpoint(n + 1).is_dir():
        n += 1
    if n == 0:
        raise RunError(f"{run.path} has learned nothing yet; repeat its m2distill train command")
    return n


def _begin(run: RunFolder, stage: int, begun: dict, learned: list[dict], data: list[dict], store: Store) -> list[dict]:
    """Check that the stage can be the one asked for, and record it; the datasets of the earlier tasks."""
    record = run.folder(stage) / "learn.json"
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
            f"{run.path} has not learned {unlearned[0]!r} yet; repeat its m2distill train command "
            "first. (A packnet run cannot learn further tasks so: its checkpoints know one stage's each.)"
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
