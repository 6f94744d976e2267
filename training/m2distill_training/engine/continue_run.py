"""One more stage for a finished run: the step that continual retraining repeats.

The teacher is the run's last checkpoint, and the replayed demos come from the run's own memory: the files of earlier
tasks are not needed. After a crash, the same command continues from the last saved state.

    stages/<n>/learn.json   the settings of the stage; a repeated command must agree with them
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.language.text_encoder import load_text_encoder
from m2distill_policy.models import Policy
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.task_memory import load_task_memory
from m2distill_training.data.windows import DemoSubset
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.engine.learn_again import set_aside
from m2distill_training.engine.protocols import split_task
from m2distill_training.engine.train import check_instruction, dataset_entry, deferred_interrupt, save_task
from m2distill_training.engine.trainer import Trainer, TrainProgress
from m2distill_training.runs.records import RunError, read_json
from m2distill_training.runs.run_folder import RunFolder, has_learned, open_run, read_run
from m2distill_training.strategies import find_strategy


def learn(
    path: Path,
    dataset: Path,
    *,
    strategy: str | None = None,
    held_out: int = 1,
    instruction: str | None = None,
    again: bool = False,
    device: str = "cpu",
    cache: Path | None = None,
    on_step: Callable[[TrainProgress], None] = lambda progress: None,
) -> int:
    """Learn the task of `dataset` in the run `path` and return the number of the stage.

    Args:
        path: run folder; the new checkpoint is in its stages/.
        dataset: LIBERO-format file with demonstrations of the new task.
        strategy: name of the strategy for this stage; default: that of a run with decoders, else m2distill.
        held_out: number of demos to hold out, to test this and later stages.
        instruction: replaces the instruction in the file.
        again: learn the run's last instruction again, from other demonstrations; its stage must not have been deployed.
        device: where the network is trained.
        cache: folder of the decoded frames; default: beside the file.
        on_step: called after every gradient step.

    Raises:
        UserError: the data, the settings or the run folder do not permit it.
    """
    config, data = read_run(path)
    with open_run(path, config, data, resume=True) as run, deferred_interrupt() as interrupted:
        finished = _finished_stages(run)
        previous = load_checkpoint(run.checkpoint(finished))
        strategy = _strategy(path, previous, strategy)
        store = open_store(dataset, previous.spec, config.pairing, cache, config.cameras)
        store = dataclasses.replace(store, instruction=instruction or store.instruction)
        check_instruction(dataset, store.instruction)
        _check_demos(dataset, store, held_out)
        settings = {"strategy": strategy, "held_out": held_out, "key": store.key, "instruction": store.instruction}
        if again:
            kept = set_aside(run, finished, settings)
            if kept != finished:
                finished, previous = kept, load_checkpoint(run.checkpoint(kept))
            data = [d for d in data if has_learned(previous, d) or d["instruction"] != store.instruction]
        stage = finished + 1
        learned = [d for d in data if has_learned(previous, d)]
        _begin(run, stage, settings, learned, data, store)
        split = split_task(len(learned), store.n_demos, store.n_demos - held_out, held_out, config.seed)
        text = load_text_encoder(config.text_encoder).encode([store.instruction])[0]
        new = DemoSubset(store, text, split.demos)
        cameras = [camera.name for camera in previous.spec.cameras]
        old = [load_task_memory(run.memory(i, "replay"), d, cameras) for i, d in enumerate(learned)]
        stages = [old, *([[]] * (stage - 2)), [new]]
        policy = Policy(previous.model_config, previous.spec)
        policy.load_state_dict(previous.state_dict)
        config = config.with_strategy(strategy)
        trainer = Trainer(config, previous.spec, device, stage, stages, policy, run, DistributedContext())
        trainer.run(stage, on_step, interrupted.is_set)
        save_task(run, split, new, config)
        trainer.finish(interrupted.is_set)
        return stage


def _strategy(path: Path, previous: Checkpoint, strategy: str | None) -> str:
    """Return the strategy, by default one that fits. Raises RunError if it does not fit decoders of earlier stages."""
    if not previous.model_config.decoders:
        return strategy or "m2distill"
    fitting = "networks" if previous.model_config.own_encoders else "decoders"
    if strategy is not None:
        chosen = find_strategy(strategy)
        if not chosen.adds_decoders or chosen.own_encoders != previous.model_config.own_encoders:
            raise RunError(
                f"{path} has a decoder for each stage, which {strategy} cannot continue; use --strategy {fitting}"
            )
    return strategy or fitting


def _check_demos(dataset: Path, store: Store, held_out: int) -> None:
    """Raise RunError if no demonstration is left to learn."""
    if store.n_demos <= held_out:
        raise RunError(
            f"{dataset} holds {store.n_demos} demos, of which {held_out} would be held out; record more "
            "or lower --held-out"
        )


def _finished_stages(run: RunFolder) -> int:
    n = 0
    while run.checkpoint(n + 1).is_dir():
        n += 1
    if n == 0:
        raise RunError(f"{run.path} has learned nothing yet; repeat its m2distill train command")
    return n


def _begin(run: RunFolder, stage: int, settings: dict, learned: list[dict], data: list[dict], store: Store) -> None:
    """Record the settings of the stage and its dataset. Raises RunError if the run does not permit this stage.

    Args:
        run: the run folder.
        stage: number of the stage to begin or to continue.
        settings: content of learn.json.
        learned: datasets that the previous checkpoint has learned.
        data: all datasets in data.json.
        store: demos of the new task.
    """
    record = run.stage_folder(stage) / "learn.json"
    unlearned = [d["instruction"] for d in data if d not in learned]
    if record.is_file():
        if (before := read_json(record, {"instruction": str})) != settings:
            raise RunError(
                f"{run.path} has begun to learn {before['instruction']!r} with {before}; repeat "
                f"that, or remove {record.parent} and the task's entry in data.json to cancel it"
            )
        unlearned = [d["instruction"] for d in data if d not in learned and d["key"] != settings["key"]]
    if unlearned:
        raise RunError(
            f"{run.path} has not learned {unlearned[0]!r} yet; repeat its m2distill train command first. "
            "(A packnet run cannot learn further tasks this way: each checkpoint knows one stage's tasks.)"
        )
    same = [d.get("task", "") for d in learned if d["instruction"] == settings["instruction"]]
    if same and not (store.task and all(same) and store.task not in same):
        raise RunError(
            f"{run.path} knows {settings['instruction']!r} already; give the new task an instruction of its "
            "own with --instruction, or replace the run's last stage with --again"
        )
    if not record.is_file():
        run.forget_memory(len(learned))  # of a cancelled task whose memory was already written
    run.write_json(str(record.relative_to(run.path)), settings)
    run.write_json("data.json", [*learned, dataset_entry(store)])
