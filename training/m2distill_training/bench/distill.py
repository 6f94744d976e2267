"""Benchmark `bench distill`: how much of its earlier tasks the starter policy keeps while it learns one more.

The starter, without the decoders of its later tasks, learns a task of LIBERO-GOAL for a few hundred gradient steps and
replays one demonstration of one of its tasks. The divergence from the starter is then measured on new demonstrations of
that task and of a task that no replayed demonstration shows. Nothing is executed in simulation, so a strategy takes
minutes instead of hours.
"""

import dataclasses
import json as json_module
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2distill_policy.bringup.system import STARTER_CHECKPOINT
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.errors import UserError, require_at_least, unknown_name
from m2distill_policy.language.text_encoder import load_text_encoder
from m2distill_policy.models import PolicyOutput
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.suites import GOAL, OBJECT
from m2distill_sim.assets import find_assets
from m2distill_sim.suites import find_task
from m2distill_training.bench.measure import against, machine, progress, show
from m2distill_training.config import TrainConfig
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import DemoSubset, Windows, evenly_spaced
from m2distill_training.engine.distributed import DistributedContext
from m2distill_training.engine.trainer import Trainer
from m2distill_training.evaluation.acting_weights import first_decoder
from m2distill_training.evaluation.drift import teacher_distances
from m2distill_training.experiments.collect import collect
from m2distill_training.losses.bc import bc_loss
from m2distill_training.presets import small
from m2distill_training.runs.run_folder import RunFolder
from m2distill_training.strategies.m2distill import M2Distill
from m2distill_training.utils.allocator import freed_memory_kept

OTHERS = (
    "stored",
    "spread",
    "latent_replay",
    "latent_recall",
    "average",
    "perturb",
    "latent_perturb",
    "decoders",
    "networks",
)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # strategy and hyper-parameters
    "finetune": ("finetune", {}),
    "er": ("er", {}),
    "m2distill": ("m2distill", {}),
    **{f"no_{term}": ("m2distill", {term: 0.0}) for term in ("image", "text", "extra", "policy")},
    "relabel": ("relabel", {}),
    "recall": ("recall", {}),
    **{name: (name, {}) for name in OTHERS},
}
# Those that are to forget less without a demonstration:
OURS = ("recall", "latent_recall", "average", "perturb", "latent_perturb", "decoders", "networks")
COLUMNS = ("name", "value", "bar", "holds")
MEASURES = ("replayed_kl", "unreplayed_kl", "new_nll", "step_ms")
DRIFT = {"text": ("text",), "extra": ("joint", "gripper")}
STEPS, WINDOWS = 250, 160
QUICK_STEPS, QUICK_BATCH = 3, 2
SHARE_FROM = 20  # gradient step from which the shares of the gradients are judged


@dataclass(frozen=True)
class Role:
    """One task of the benchmark: its demonstrations, and how many of them are for training."""

    suite: str
    task: int
    demos: int
    learned: int

    @property
    def file(self) -> str:
        return f"{find_task(self.suite, self.task).name}_demo.hdf5"


ROLES = {
    "new": Role(GOAL, 1, 24, 20),
    "replayed": Role(OBJECT, 0, 24, 8),  # one of the first 8 is replayed
    "unreplayed": Role(OBJECT, 1, 14, 0),
}


@freed_memory_kept()  # as the trainer does
def bench_distill(
    json: bool = False,
    quick: bool = False,
    data: Path = Path("data/bench_distill"),
    seeds: Sequence[int] = (0, 1, 2),
    strategies: Sequence[str] = tuple(VARIANTS),
    steps: int = STEPS,
    workers: int = 2,
    later_lr: float = 1.0,
) -> None:
    """Run the benchmark and print it; `m2distill bench distill --help` describes it. Raises UserError."""
    require_at_least(1, steps=steps, workers=workers)
    for name in strategies:
        if name not in VARIANTS:
            raise UserError(unknown_name("strategy of this benchmark", name, VARIANTS))
    if not seeds or min(seeds) < 0:
        raise UserError(f"seeds are {list(seeds)}, expected at least one number from 0")
    starter = first_decoder(load_checkpoint(STARTER_CHECKPOINT))
    roles = {name: Role(x.suite, x.task, 3, x.learned and 2) for name, x in ROLES.items()} if quick else ROLES
    steps, batch = (QUICK_STEPS, QUICK_BATCH) if quick else (steps, None)
    configs = [(name, config_of(name, starter, seed, steps, batch, later_lr)) for seed in seeds for name in strategies]
    tasks = {name: _open_task(role, data, starter, workers) for name, role in roles.items()}
    runs: dict[str, list[dict]] = {name: [] for name in strategies}
    for name, config in configs:
        found = learn_and_measure(config, starter, tasks, roles)
        runs[name].append(found)
        values = ", ".join(f"{key} {found[key]:.2f}" for key in MEASURES)
        drift = {group: _rounded(x) for group, x in found["drift"].items()}
        progress(f"seed {config.seed}, {name}: {values}, drift {drift}, shares {found['gradient_share']}")
    summary = {name: _summary(found) for name, found in runs.items()}
    bars = judge(summary)
    if not json:
        rows = [{"name": f"{name} {key}", "value": x[key]["mean"]} for name, x in summary.items() for key in MEASURES]
        show([*rows, *bars], COLUMNS, False)
        return
    settings = {"seeds": list(seeds), "steps": steps, "later_lr": later_lr, "windows": WINDOWS}
    print(json_module.dumps({"strategies": summary, "bars": bars, **settings, **machine()}, indent=2))


def learn_and_measure(
    config: TrainConfig, starter: Checkpoint, tasks: Mapping[str, DemoSubset], roles: Mapping[str, Role]
) -> dict:
    """Train with a configuration of `config_of` and return what the policy kept and learned."""
    steps = config.optim.budget
    replayed = int(np.random.default_rng(config.seed).integers(roles["replayed"].learned))
    new = dataclasses.replace(tasks["new"], demos=tuple(range(roles["new"].learned)))
    old = dataclasses.replace(tasks["replayed"], demos=(replayed,))
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.save_checkpoint(run.checkpoint(1), starter)  # the stage that learned the earlier tasks
        trainer = Trainer(
            config,
            starter.spec,
            "cpu",
            2,
            [[old], [new]],
            starter.build_policy(),
            run,
            DistributedContext(),
            [starter.instructions[text] for text in sorted(starter.instructions)],
        )
        begun, shares = time.perf_counter(), []
        for step in range(steps):
            shares += _gradient_shares(trainer, step)
        step_ms = 1e3 * (time.perf_counter() - begun) / steps
    kept = measure(trainer.finished_policy(), starter, tasks, roles)
    return kept | {
        "step_ms": step_ms,
        "gradient_share": {
            term: [round(x, 3) for x in (min(s[term] for s in shares), max(s[term] for s in shares))]
            for term in (shares[0] if shares else ())
        },
    }


def measure(
    policy: torch.nn.Module, starter: Checkpoint, tasks: Mapping[str, DemoSubset], roles: Mapping[str, Role]
) -> dict:
    """Return the divergences and drifts of a policy from the starter, and its loss for the new task."""
    policy, teacher = policy.eval(), starter.build_policy().eval()
    outputs = {
        role: _outputs(tasks[role], range(roles[role].learned, roles[role].demos), policy, teacher, starter)
        for role in roles
    }
    student, _, action = outputs["new"]
    distances = {role: teacher_distances(*outputs[role][:2]) for role in ("replayed", "unreplayed")}
    drifts = [_by_group(x["relative"]) for x in distances.values()]
    return {
        "replayed_kl": distances["replayed"]["policy_kl"],
        "unreplayed_kl": distances["unreplayed"]["policy_kl"],
        "new_nll": bc_loss(student.dist, action).item(),
        "drift": {group: (drifts[0][group] + drifts[1][group]) / 2 for group in drifts[0]},
    }


def judge(summary: Mapping[str, dict]) -> list[dict]:
    """Return the bars of the benchmark that the measured variants permit."""
    bars = []

    def bar(name: str, value: float, sign: str, limit: float) -> None:
        bars.append({"name": name, "value": round(value, 3), **against(value, sign, limit)})

    full = summary.get("m2distill")
    if full is None:
        return bars
    for term in ("image", "text", "extra"):
        if without := summary.get(f"no_{term}"):
            ratio = full["drift"][term]["mean"] / max(without["drift"][term]["mean"], 1e-12)
            bar(f"{term} drift, with the term over without", ratio, "<=", 0.5)
    bar("divergence of m2distill on the task that is not replayed, nats", full["unreplayed_kl"]["mean"], "<=", 3.5)
    for term, (low, high) in full["gradient_share"].items():
        bar(f"smallest gradient of the {term} term over cloning's", low, ">=", 0.05)
        bar(f"largest gradient of the {term} term over cloning's", high, "<=", 1)
    for name in OURS:
        if found := summary.get(name):
            ratio = found["unreplayed_kl"]["mean"] / max(full["unreplayed_kl"]["mean"], 1e-12)
            bar(f"divergence of {name} over m2distill's on the task that is not replayed", ratio, "<=", 0.8)
            worse = found["new_nll"]["mean"] - full["new_nll"]["mean"]
            bar(f"loss of {name} on the new task above m2distill's, nats", worse, "<=", 0.5)
    return bars


def config_of(
    name: str, starter: Checkpoint, seed: int, steps: int, batch_size: int | None = None, later_lr: float = 1.0
) -> TrainConfig:
    """Return the configuration of a variant: the preset `small` with the network and inputs of the starter.

    `batch_size` counts the windows of the new task and of the replayed one, each; by default it is the preset's.
    `later_lr` is the factor of the learning rate, `optim.later_lr`.
    """
    strategy, values = VARIANTS[name]
    config = small().with_strategy(strategy, **values)
    optim = dataclasses.replace(config.optim, budget=steps, later_lr=later_lr)
    replay = dataclasses.replace(config.replay, demos_per_task=1)
    if batch_size is not None:
        optim = dataclasses.replace(optim, batch_size=batch_size)
        replay = dataclasses.replace(replay, batch_size=batch_size)
    return dataclasses.replace(
        config,
        seed=seed,
        model=starter.model_config,
        image_px=starter.spec.cameras[0].height,
        history=starter.spec.history,
        replay=replay,
        optim=optim,
    )


def _open_task(role: Role, data: Path, starter: Checkpoint, workers: int) -> DemoSubset:
    """Open the demos of a task in the folder `data`; they are collected if the file is missing."""
    path = data / role.file
    if not path.is_file():
        progress(f"collecting {role.demos} demos in {path}")
        size = starter.spec.cameras[0].height
        collect(role.suite, [role.task], role.demos, data, workers=workers, size_px=size, assets=find_assets("builtin"))
    store = open_store(path, starter.spec, "before", None)
    if store.n_demos < role.demos:
        raise UserError(f"{path} holds {store.n_demos} demos, expected {role.demos}; remove it to collect them again")
    text = starter.instructions.get(store.instruction)
    if text is None:
        text = load_text_encoder(starter.spec.text_encoder).encode([store.instruction])[0]
    return DemoSubset(store, text, None)


def _gradient_shares(trainer: Trainer, step: int) -> list[dict[str, float]]:
    """Make a gradient step; return the norm of every weighted term over cloning's, if the step measured them."""
    strategy = trainer.strategy
    terms = [name for name in strategy.measured_losses(step) if name != "bc"]
    factors = {term: strategy.factor(term) for term in terms} if isinstance(strategy, M2Distill) else {}
    trainer.gradient_step()
    if not factors or step < SHARE_FROM:
        return []
    norms = strategy.log_values()
    return [{term: factor * norms[f"grad_norm_{term}"] / norms["grad_norm_bc"] for term, factor in factors.items()}]


@torch.no_grad()
def _outputs(
    task: DemoSubset, demos: range, policy: torch.nn.Module, teacher: torch.nn.Module, starter: Checkpoint
) -> tuple[PolicyOutput, PolicyOutput, torch.Tensor]:
    """Return the outputs of student and teacher on windows of `demos`, and the demonstrated actions."""
    batch = evenly_spaced(Windows([dataclasses.replace(task, demos=tuple(demos))], starter.spec.history), WINDOWS)
    inputs = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])
    return policy(inputs), teacher(inputs), torch.from_numpy(batch["action"])


def _by_group(relative: Mapping[str, float]) -> dict[str, float]:
    """Return the mean over the tokens of each group, of distances by the name of the token."""
    groups = {"image": tuple(name for name in relative if name not in ("text", "joint", "gripper")), **DRIFT}
    return {group: statistics.fmean(relative[name] for name in names) for group, names in groups.items()}


def _summary(found: Sequence[dict]) -> dict:
    """Return the mean over the seeds and every seed's value; of gradient shares the smallest and the largest."""

    def over_seeds(values: list[float]) -> dict:
        return {"mean": _rounded(statistics.fmean(values)), "per_seed": [_rounded(x) for x in values]}

    return {
        **{key: over_seeds([x[key] for x in found]) for key in MEASURES},
        "drift": {group: over_seeds([x["drift"][group] for x in found]) for group in found[0]["drift"]},
        "gradient_share": {
            term: [min(x["gradient_share"][term][0] for x in found), max(x["gradient_share"][term][1] for x in found)]
            for term in found[0]["gradient_share"]
        },
    }


def _rounded(x: float) -> float:
    """Return x with five significant digits: drifts span many orders of magnitude."""
    return float(f"{x:.5g}")
