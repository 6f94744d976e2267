"""Speed of a policy that acts, alone and against LIBERO's own `get_action`."""

import itertools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.precision import BACKENDS, PRECISIONS
from m2distill_policy.models import libero
from m2distill_policy.observations.observation import Observation
from m2distill_policy.spec import PolicySpec
from m2distill_training.bench.libero_source import libero_policy
from m2distill_training.bench.measure import against, alternate
from m2distill_training.bench.synthetic import text
from m2distill_training.data.libero.libero_checkpoint import CAMERAS, convert_state_dict

ACTING_BARS = {  # over LIBERO's get_action
    ("torch", "float32"): 0.7,
    ("torch", "bfloat16"): 0.7,
    ("openvino", "float32"): 0.5,
    ("openvino", "bfloat16"): 0.25,  # where the processor has instructions for it
}
BEST_BARS = {"float32": 0.5, "bfloat16": 0.25}  # of the fastest backend; the second on processors with AMX


def acting(checkpoint: Checkpoint, precision: str = "float32", backend: str = "torch") -> Callable[[], object]:
    """Return a function that makes one step of a checkpoint on noise."""
    random, spec = np.random.default_rng(0), checkpoint.spec
    policy = InferencePolicy(checkpoint, precision=precision, backend=backend)
    policy.set_text(text(0))
    images = {c.name: random.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in spec.cameras}
    observation = Observation(images, np.zeros(7, np.float32), np.zeros(2, np.float32), 0)
    return lambda: policy.step(observation)


def against_libero(spec: PolicySpec, checkout: Path, repeats: int) -> list[dict]:
    """Time both on equal weights: ours from uint8 images to a checked sample, LIBERO's from tensors to an action."""
    theirs = libero_policy(checkout)
    weights = convert_state_dict(theirs.state_dict(), libero(), spec, "LIBERO")
    observation = {name: torch.rand(1, 3, 128, 128) for name in CAMERAS}
    observation |= {"joint_states": torch.zeros(1, 7), "gripper_states": torch.zeros(1, 2)}
    data = {"obs": observation, "task_emb": torch.from_numpy(text(0))[None]}
    theirs.reset()
    rows = []
    backends = [name for name in BACKENDS if name == "torch" or find_spec(name)]
    for backend, precision in itertools.product(backends, PRECISIONS):
        ours = acting(Checkpoint(spec, libero(), weights, {}), precision, backend)
        for _ in range(10):  # a full history
            ours(), theirs.get_action(data)
        times = alternate(
            ours, lambda: theirs.get_action(data), repeats, f"acting with {backend} in {precision}, ours and LIBERO's"
        )
        ratio = times.ours / times.plain
        rows.append(
            {
                "name": f"acting with {backend} in {precision} over LIBERO's get_action",
                "value": round(ratio, 2),
                "unit": "ratio",
                "ours_ms": round(1e3 * times.ours, 2),
                "libero_ms": round(1e3 * times.plain, 2),
                **against(ratio, "<=", ACTING_BARS[backend, precision]),
            }
        )
    return rows


def fastest(rows: list[dict]) -> list[dict]:
    """Return one row for each precision, of the fastest installed backend among the rows of `against_libero`."""
    found = []
    for precision, bar in BEST_BARS.items():
        best = min((row for row in rows if f" in {precision} " in row["name"]), key=lambda row: row["value"])
        judged = against(best["value"], "<=", bar)
        if precision == "bfloat16" and not has_amx():
            judged = {"bar": f"<= {bar} with AMX", "holds": ""}
        found.append(best | {"name": f"fastest of: {best['name']}"} | judged)
    return found


def has_amx() -> bool:
    """Return True if the processor multiplies bfloat16 matrices by AMX."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
