"""Policy node that writes every tensor that the network receives to a file of its own."""

import itertools
import sys
from pathlib import Path

import numpy as np

from m2distill_policy.control import inference
from m2distill_policy.ros.nodes import policy_node

folder = Path(sys.argv.pop(1))
to_model_input, step = inference.to_model_input, inference.InferencePolicy.step
inputs, count = {}, itertools.count()


def recorded_model_input(*arguments):
    batch = to_model_input(*arguments)
    inputs.clear()
    inputs.update(
        {f"image_{name}": images.numpy() for name, images in batch["images"].items()},
        joint=batch["joint"].numpy(),
        gripper=batch["gripper"].numpy(),
    )
    return batch


def recorded_step(policy, observation):
    sample = step(policy, observation)
    np.savez(folder / f"{next(count)}.npz", action=sample.action, **inputs)
    return sample


inference.to_model_input, inference.InferencePolicy.step = recorded_model_input, recorded_step
sys.exit(policy_node.main())
