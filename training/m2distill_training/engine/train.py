"""Training of a run: the sequence of stages, each starting from the policy of the previous one, and resuming."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from m2distill_policy.cameras import CAMERA_NAMES, CAMERAS, find_camera
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.language.text_encoder import TextEncoder, default_text_encoder, load_text_encoder
from m2distill_policy.models import Policy
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import AUTO, TrainConfig
from m2distill_training.data.libero.reader import open_libero
from m2distill_training.data.store import Store, open_store
from m2distill_training.data.task_memory import save_task_memory
from m2distill_training.data.windows import DemoSubset
from m2distill_training.engine.distributed import DistributedContext, joined
from m2distill_training.engine.protocols import TaskSplit, plan
from m2distill_training.engine.start_from import check_strategy, load_first_stage
from m2distill_training.engine.trainer import Trainer, TrainProgress
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import RunFolder, follow_run, open_run, read_run
from m2distill_training.utils.device import fast_precision
from m2distill_training.utils.schemas import LONGEST, is_text


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
    last_stage: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_ready: Callable[[], None] = lambda: None,
    on_step: Callable[[TrainProgress], None] = lambda progress: None,
) -> RunFolder:
    """Learn the tasks of the datasets, divided into stages by config.protocol.

    `out`/stages/<n>/checkpoint appears after each stage. Under torchrun every process calls this function alike.

    Args:
        config: settings of the run.
        datasets: LIBERO-format files, one per task, in the order of learning.
        out: the run folder.
        resume: continue the run in `out`.
        device: where the network is trained.
        start_from: checkpoint of another run in place of the first stage, in which strategies do not differ.
        cache: folder of the decoded frames; default: beside each file.
        instructions: replace those in the files.
        last_stage: number of the stage to end with; default: the last one.
        on_ready: called when everything has been checked.
        stop: called after every gradient step; if True, and after Ctrl-C, the state is saved before KeyboardInterrupt.
        on_step: called after every gradient step.

    Raises:
        UserError: the files, the settings or the run folder do not permit it.
    """
    instructions, n_demos, robot = _survey(datasets, config, instructions)  # first, so that errors appear at once
    splits = plan(config, datasets, n_demos)
    check_strategy(config, start_from)
    config, spec, encoder = _resolve(config, robot)
    embeddings = encoder.encode(instructions)
    with joined(device) as distributed:
        config = _with_precision(config, out if resume else None, distributed)
        stores = _open_stores(datasets, instructions, spec, config, cache, distributed)
        stages = [[DemoSubset(stores[x.task], embeddings[x.task], x.demos) for x in stage] for stage in splits]
        data = [dataset_entry(store) for store in stores]
        first = load_first_stage(start_from, config, spec, data[: len(splits[0])])
        with _run_folder(out, config, data, resume, distributed) as run, deferred_interrupt() as interrupted:
            on_ready()
            _copy_first_stage(start_from, first, run, distributed)
            policy: Policy | None = None
            for stage, (new, new_splits) in enumerate(zip(stages[:last_stage], splits[:last_stage], strict=True), 1):
                _save_tasks(run, new_splits, new, config, distributed)
                if not run.checkpoint(stage).is_dir():
                    trainer = Trainer(config, spec, distributed.device, stage, stages[:stage], policy, run, distributed)
                    later_steps = sum(map(trainer.steps_of, stages[stage:last_stage]))
                    trainer.run(len(stages), on_step, lambda: interrupted.is_set() or stop(), later_steps)
                    trainer.finish(lambda: interrupted.is_set() or stop())
                policy = _saved_policy(run, stage, distributed)
            return run


def _saved_policy(run: RunFolder, stage: int, distributed: DistributedContext) -> Policy:
    """Return the policy of a stage when the leader has saved it."""
    distributed.wait()
    return load_checkpoint(run.checkpoint(stage)).build_policy()


def dataset_entry(store: Store) -> dict:
    """Return the entry of a dataset in data.json. Its path is absolute: commands may run in another folder."""
    path = str(store.source.absolute())
    entry = {"path": path, "key": store.key, "instruction": store.instruction, "demos": store.n_demos}
    return entry | ({"task": store.task} if store.task else {})


def save_task(run: RunFolder, split: TaskSplit, subset: DemoSubset, config: TrainConfig) -> None:
    """Save what later stages may replay of a task, and its held-out demos, in the run folder."""
    order = subset.replay_order(config.replay.choice, config.seed, split.task)
    replayable = order[: min(config.replay.demos_per_task, len(split.demos))]
    save_task_memory(run.memory(split.task, "replay"), subset, replayable)
    if split.held_out:
        save_task_memory(run.memory(split.task, "held_out"), subset, split.held_out)


def _survey(
    datasets: Sequence[Path], config: TrainConfig, instructions: Sequence[str] | None
) -> tuple[list[str], list[int], PolicySpec]:
    """Return the instruction and the number of demos of every dataset, and the robot of the first one.

    `instructions` replace those in the files.
    """
    found, robots = [], []
    for path in datasets:
        with open_libero(path, config.pairing, state=config.state) as file:
            found.append((file.instruction, len(file.demo_names), file.task))
            robots.append(file.robot)
    texts = [text for text, *_ in found] if instructions is None else list(instructions)
    _check_instructions(datasets, texts, [task for *_, task in found])
    return texts, [n for _, n, _ in found], robots[0]


def _check_instructions(datasets: Sequence[Path], instructions: Sequence[str], tasks: Sequence[str]) -> None:
    for i, (path, text) in enumerate(zip(datasets, instructions, strict=True)):
        check_instruction(path, text)
        same = [tasks[j] for j in range(i) if instructions[j] == text]
        if same and not (tasks[i] and all(same) and tasks[i] not in same):  # several tasks of LIBERO-90 share one
            raise RunError(
                f"{path} holds the instruction {text!r} like another dataset before it; give one file per task"
            )


def check_instruction(path: Path, text: str) -> None:
    """Raise RunError for an instruction that a run folder cannot record."""
    if not is_text(text):
        raise RunError(
            f"{path} holds an instruction of {len(text)} characters, {text[:40]!r} ...; allowed are up to {LONGEST} "
            "without control characters: correct it in the file, or give another one with --instruction"
        )


def _resolve(config: TrainConfig, robot: PolicySpec) -> tuple[TrainConfig, PolicySpec, TextEncoder]:
    """Return the config with its text encoder and cameras resolved, the policy's spec and the encoder.

    The default cameras give way to those of the robot in the data.
    """
    names = tuple(camera.name for camera in robot.cameras)
    if config.cameras == CAMERAS and names != CAMERA_NAMES:
        config = dataclasses.replace(config, cameras=tuple(map(find_camera, names)))
    encoder = default_text_encoder() if config.text_encoder == "auto" else load_text_encoder(config.text_encoder)
    config = dataclasses.replace(config, text_encoder=encoder.name)
    return config, config.policy_spec(encoder.name, encoder.width, robot), encoder


def _with_precision(config: TrainConfig, begun: Path | None, distributed: DistributedContext) -> TrainConfig:
    """Return the config with its precision resolved: that of the run `begun`, or what is fast in all processes."""
    if config.precision != AUTO:
        return config
    if begun is not None and (begun / "config.json").is_file():
        return dataclasses.replace(config, precision=read_run(begun)[0].precision)
    slow = distributed.any(fast_precision(distributed.device) == "float32")
    return dataclasses.replace(config, precision="float32" if slow else "bfloat16")


def _open_stores(
    datasets: list[Path],
    instructions: Sequence[str],
    spec: PolicySpec,
    config: TrainConfig,
    cache: Path | None,
    distributed: DistributedContext,
) -> list[Store]:
    """Open the datasets' stores; the leader decodes missing ones while the other processes wait."""
    if not distributed.leads:
        distributed.wait()
    stores = [open_store(path, spec, config.pairing, cache, config.cameras) for path in datasets]
    if distributed.leads:
        distributed.wait()
    return [dataclasses.replace(store, instruction=text) for store, text in zip(stores, instructions, strict=True)]


@contextmanager
def _run_folder(
    out: Path, config: TrainConfig, data: list[dict], resume: bool, distributed: DistributedContext
) -> Iterator[RunFolder]:
    """Open the run folder: for writing in the leader, for reading in the other processes."""
    if not distributed.leads:
        distributed.wait()
        yield follow_run(out)
        return
    with open_run(out, config, data, resume) as run:
        distributed.wait()
        yield run


def _copy_first_stage(
    source: Path | None, checkpoint: Checkpoint | None, run: RunFolder, distributed: DistributedContext
) -> None:
    """Save another run's checkpoint `source` and its learning curve as the first stage of `run`, unless it has one."""
    if source is not None and checkpoint is not None and not run.checkpoint(1).is_dir():
        for point in RunFolder.curve_beside(source):
            run.save_checkpoint(run.stage_folder(1) / "curve" / point.name, load_checkpoint(point))
        run.save_checkpoint(run.checkpoint(1), checkpoint)
    distributed.wait()  # until the leader has saved it


def _save_tasks(
    run: RunFolder,
    splits: Sequence[TaskSplit],
    subsets: Sequence[DemoSubset],
    config: TrainConfig,
    distributed: DistributedContext,
) -> None:
    """Save the tasks of a stage in the leader, while the other processes wait."""
    if distributed.leads:
        for split, subset in zip(splits, subsets, strict=True):
            save_task(run, split, subset, config)
    distributed.wait()


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Set the event on the first Ctrl-C, so that the current gradient step completes; a second one interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread receives signals
        return

    def on_interrupt(number, frame):
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
