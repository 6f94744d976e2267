"""Policy node that writes every tensor that the network receives to a file of its own."""

import itertools
import sys
from pathlib import Path

import numpy as np

from m2distill_policy.control import inference
from m2distill_policy.ros.nodes import policy_node

folder = Path(sys.argv.pop(1))
door, step = inference.to_model_input, inference.InferencePolicy.step
shown, count = {}, itertools.count()


def watched_door(*arguments):
    batch = door(*arguments)
    shown.clear()
    shown.update(
        {f"image_{name}": images.numpy() for name, images in batch["images"].items()},
        joint=batch["joint"].numpy(),
        gripper=batch["gripper"].numpy(),
    )
    return batch


def watched_step(policy, observation):
    sample = step(policy, observation)
    np.savez(folder / f"{next(count)}.npz", action=sample.action, **shown)
    return sample


inference.to_model_input, inference.InferencePolicy.step = watched_door, watched_step
sys.exit(policy_node.main())
