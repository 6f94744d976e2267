"""First stage of a run, taken from another run (`--start-from`)."""

from pathlib import Path

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.spec import PolicySpec
from m2distill_training.config import TrainConfig
from m2distill_training.runs.records import RunError
from m2distill_training.runs.run_folder import read_run
from m2distill_training.strategies import find_strategy, make_strategy


def check_strategy(config: TrainConfig, source: Path | None) -> None:
    """Raise RunError if the strategy needs more of the first stage than the checkpoint `source`."""
    if source is not None and make_strategy(config).remembers:
        raise RunError(
            f"{config.strategy} needs more of the first stage than a checkpoint holds; leave --start-from out"
        )


def load_first_stage(source: Path | None, config: TrainConfig, spec: PolicySpec, data: list[dict]) -> Checkpoint | None:
    """Return the checkpoint `source` if its run learned in its first stage what this run would.

    Args:
        source: checkpoint of a first stage, in its run folder; None returns None.
        config: configuration of the new run.
        spec: spec of the new run's policy.
        data: datasets of the new run's first stage.

    Raises:
        UserError: the checkpoint differs, or its run learned from or held out other demonstrations.
    """
    if source is None:
        return None
    checkpoint = load_checkpoint(source)
    instructions = [d["instruction"] for d in data]
    if (checkpoint.model_config, checkpoint.spec) != (config.model, spec):
        raise RunError(f"{source} has another network or spec than this run; train both with the same preset")
    if set(checkpoint.instructions) != set(instructions):
        raise RunError(
            f"{source} has learned {sorted(checkpoint.instructions)}, the first stage here is {instructions}; give "
            "the same tasks first"
        )
    if checkpoint.metrics.get("data") != {d["instruction"]: d["key"] for d in data}:
        raise RunError(
            f"{source} has learned other files than {', '.join(d['path'] for d in data)}; give the files that "
            "it has learned, unchanged"
        )
    _check_demos(source, checkpoint, config, instructions)
    return checkpoint


def _check_demos(source: Path, checkpoint: Checkpoint, config: TrainConfig, instructions: list[str]) -> None:
    """Raise RunError unless both runs learn and hold out the same demonstrations in their first stage."""
    run = source.resolve().parent.parent.parent
    if not (run / "config.json").is_file():
        raise RunError(
            f"{source} is not in the run folder that it was learned in, so its demonstrations are unknown; "
            "give RUN/stages/1/checkpoint"
        )
    theirs, datasets = read_run(run)
    n = None if find_strategy(config.strategy).joint else 1  # entries of stage_demos that the first stage takes from
    settings = {  # theirs, ours: they determine which demonstrations are learned and which are held out
        "stage": (checkpoint.metrics.get("stage"), 1),
        "order of tasks": ([d["instruction"] for d in datasets[: len(instructions)]], instructions),
        "seed": (checkpoint.metrics.get("seed"), config.seed),
        "protocol.stage_demos": (list(theirs.protocol.stage_demos[:n]), list(config.protocol.stage_demos[:n])),
        "replay.held_out_demos": (theirs.replay.held_out_demos, config.replay.held_out_demos),
    }
    if other := [f"{name} {value} (here: {ours})" for name, (value, ours) in settings.items() if value != ours]:
        raise RunError(
            f"{source} was learned with {', '.join(other)}, and so from other demonstrations than here; "
            "repeat its settings, or leave --start-from out"
        )
