"""The sequence of stages: each starts from the policy of the previous one; resume."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.language.text_encoder import default_text_encoder, load_text_encoder
from m2distill_policy.models import Policy
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import TrainConfig
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.replay import random_order
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.task_memory import save_task_memory
from m2distill_training.data.windows import DemoSubset
from m2distill_training.engine.distributed import DistributedContext, joined
from m2distill_training.engine.protocols import TaskSplit, plan
from m2distill_training.engine.trainer import Progress, Trainer
from m2distill_training.runs.run_folder import RunError, RunFolder, follow_run, open_run, read_run
from m2distill_training.strategies import find_strategy, make_strategy


def train(
    config: TrainConfig,
    datasets: list[Path],
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    start_from: Path | None = None,
    cache: Path | None = None,
    instructions: Sequence[str] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> RunFolder:
    """Learn the datasets' tasks, divided into stages by config.protocol; stages/<n>/checkpoint appears in `out` after
    each. Under torchrun every process calls this alike and has its share of every batch.

    `start_from` is another run's checkpoint that takes the place of the first stage: a strategy that remembers nothing
    but the policy learns its first stage like any other, so a control run need not repeat it. `instructions` replace
    those in the files. Ctrl-C saves the state after the gradient step in progress and raises KeyboardInterrupt;
    `resume` goes on from there. `on_ready` is called when everything has been checked. Raises UserError.
    """
    own, n_demos = _survey(datasets, config)  # first: what is wrong with the files or the plan shows at once
    instructions = own if instructions is None else list(instructions)
    _check_distinct(datasets, instructions)
    lessons = plan(config, datasets, n_demos)
    if start_from is not None and make_strategy(config).remembers:
        raise RunError(
            f"{config.strategy} needs more of the first stage than a checkpoint holds; leave --start-from out"
        )
    encoder = default_text_encoder() if config.text_encoder == "auto" else load_text_encoder(config.text_encoder)
    config = dataclasses.replace(config, text_encoder=encoder.name)
    spec = config.policy_spec(encoder.name, encoder.width)
    embeddings = encoder.encode(instructions)
    with joined(device) as ranks:
        stores = [
            dataclasses.replace(store, instruction=text)
            for store, text in zip(_open_stores(datasets, spec, config, cache, ranks), instructions, strict=True)
        ]
        stages = [[DemoSubset(stores[x.task], embeddings[x.task], x.demos) for x in stage] for stage in lessons]
        data = [{"path": str(s.source), "key": s.key, "instruction": s.instruction, "demos": s.n_demos} for s in stores]
        start = None if start_from is None else _start(start_from, config, spec, data[: len(lessons[0])])
        with _run_folder(out, config, data, resume, ranks) as run, deferred_interrupt() as interrupted:
            on_ready()
            policy: Policy | None = None
            for stage in range(1, len(stages) + 1):
                if stage == 1 and start is not None and start_from is not None and not run.checkpoint(1).is_dir():
                    for point in RunFolder.curve_beside(start_from):
                        run.save_checkpoint(run.checkpoint(1).with_name("curve") / point.name, load_checkpoint(point))
                    run.save_checkpoint(run.checkpoint(1), start)
                elif not run.checkpoint(stage).is_dir():
                    learner = Trainer(config, spec, ranks.device, stage, stages[:stage], policy, run, ranks)
                    later_steps = sum(map(learner.steps_of, stages[stage:]))
                    learner.run(len(stages), on_step, interrupted, later_steps)
                    learner.finish(interrupted)
                if ranks.leads:
                    for lesson, part in zip(lessons[stage - 1], stages[stage - 1], strict=True):
                        save_task(run, lesson, part, config)
                ranks.wait()
                policy = Policy(config.model, spec)
                policy.load_state_dict(load_checkpoint(run.checkpoint(stage)).state_dict)
            return run


def save_task(run: RunFolder, lesson: TaskSplit, part: DemoSubset, config: TrainConfig) -> None:
    """Into the run folder: what further stages may replay of a task, and what is held out of it."""
    order = random_order(part.store.n_demos, config.seed, lesson.task)
    save_task_memory(
        run.memory(lesson.task, "replay"), part, order[: min(config.replay.demos_per_task, len(lesson.demos))]
    )
    if lesson.held_out:
        save_task_memory(run.memory(lesson.task, "held_out"), part, lesson.held_out)


def _open_stores(
    datasets: list[Path], spec: PolicySpec, config: TrainConfig, cache: Path | None, ranks: DistributedContext
) -> list[Store]:
    """The leader decodes what has not been decoded yet, the others find it done."""
    if not ranks.leads:
        ranks.wait()
    stores = [open_store(path, spec, config.pairing, cache, config.cameras) for path in datasets]
    if ranks.leads:
        ranks.wait()
    return stores


@contextmanager
def _run_folder(
    out: Path, config: TrainConfig, data: list[dict], resume: bool, ranks: DistributedContext
) -> Iterator[RunFolder]:
    if not ranks.leads:
        ranks.wait()
        yield follow_run(out)
        return
    with open_run(out, config, data, resume) as run:
        ranks.wait()
        yield run


def _survey(datasets: Sequence[Path], config: TrainConfig) -> tuple[list[str], list[int]]:
    """The instruction and the number of demos of every dataset."""
    found = []
    for path in datasets:
        with open_libero(path, config.pairing) as file:
            found.append((file.instruction, len(file.demo_names)))
    return [text for text, _ in found], [n for _, n in found]


def _check_distinct(datasets: Sequence[Path], instructions: Sequence[str]) -> None:
    for i, (path, text) in enumerate(zip(datasets, instructions, strict=True)):
        if text in instructions[:i]:
            raise RunError(
                f"{path} holds the instruction {text!r} like another dataset before it; give one file per task"
            )


def _start(source: Path, config: TrainConfig, spec: PolicySpec, data: list[dict]) -> Checkpoint:
    """The checkpoint `source`, where its run has learned in its first stage what this one would of the datasets `data`.
    Raises UserError."""
    checkpoint, instructions = load_checkpoint(source), [d["instruction"] for d in data]
    if (checkpoint.model_config, checkpoint.spec) != (config.model, spec):
        raise RunError(f"{source} has another network or spec than this run; train both with the same preset")
    if set(checkpoint.instructions) != set(instructions):
        raise RunError(
            f"{source} has learned {sorted(checkpoint.instructions)}, the first stage here is {instructions}"
        )
    if checkpoint.metrics.get("data") != {d["instruction"]: d["key"] for d in data}:
        raise RunError(
            f"{source} has learned other files than {', '.join(d['path'] for d in data)}; give those that "
            "it has learned, unchanged"
        )
    run = source.resolve().parent.parent.parent
    if not (run / "config.json").is_file():
        raise RunError(
            f"{source} is not in the run folder that it was learned in, which tells of what demonstrations; "
            "give RUN/stages/1/checkpoint"
        )
    there, datasets = read_run(run)
    n = None if find_strategy(config.strategy).joint else 1  # entries of stage_demos that the first stage takes from
    choice = {  # there, here: what follows from it is which demonstrations are learned and which are held out
        "stage": (checkpoint.metrics.get("stage"), 1),
        "order of tasks": ([d["instruction"] for d in datasets[: len(data)]], instructions),
        "seed": (checkpoint.metrics.get("seed"), config.seed),
        "protocol.stage_demos": (list(there.protocol.stage_demos[:n]), list(config.protocol.stage_demos[:n])),
        "replay.held_out_demos": (there.replay.held_out_demos, config.replay.held_out_demos),
    }
    if other := [f"{name} {its} (here: {ours})" for name, (its, ours) in choice.items() if its != ours]:
        raise RunError(
            f"{source} was learned with {', '.join(other)}, and so from other demonstrations than here; "
            "repeat its settings, or leave --start-from out"
        )
    return checkpoint


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of tearing a gradient step apart; a second one interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return

    def on_interrupt(number, frame):
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
