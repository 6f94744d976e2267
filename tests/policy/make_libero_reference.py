"""Write data/libero_reference.npz: outputs of LIBERO's BCTransformerPolicy for weights and inputs given by formulas.

    python tests/policy/make_libero_reference.py LIBERO_CHECKOUT OUT.npz

LIBERO_CHECKOUT is a clone of github.com/Lifelong-Robot-Learning/LIBERO; the pinned file was made from commit 8f1084e.
The PyPI package is not sufficient, because it lacks libero/lifelong/models/modules. Also required are the dependencies
of hf-libero, and hydra-core. The network is built from LIBERO's default configuration and only evaluated. The test
imports the formulas from this file.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np

FORWARD_STEPS, QUEUE_STEPS, BATCH = 10, 13, 2
CAMERAS = {"agentview_rgb": "agentview", "eye_in_hand_rgb": "wrist"}  # LIBERO's name -> ours
CONSTANTS = ("pos_x", "pos_y", "inv_freq")  # entries of LIBERO's state_dict that are not learned; they are pinned too


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return standard normal float32 values, determined by the name; the stream of RandomState never changes."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return one entry of LIBERO's state_dict, scaled so that activations neither vanish nor saturate."""
    if name.endswith("num_batches_tracked"):
        return np.array(7, dtype=np.int64)
    noise = normal(name.replace("proprio_mlp", "encoders.1"), shape)  # one layer of LIBERO with two names
    if name.endswith("running_var"):
        return 1 + 0.5 * np.abs(noise)
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.1 * noise  # a norm's scale
    if name.endswith("weight"):
        return noise / np.sqrt(np.float32(np.prod(shape[1:])))
    return 0.1 * noise


def inputs(steps: int, batch: int) -> dict[str, np.ndarray]:
    """Return LIBERO's names -> (B, T, ...) float32; images are multiples of 1/255, task_emb is (B, 768)."""
    label = f"{batch}x{steps} "
    images = {}
    for name in CAMERAS:
        random = np.random.RandomState(zlib.crc32((label + name).encode()))
        images[name] = random.randint(0, 256, (batch, steps, 3, 128, 128)).astype(np.float32) / np.float32(255)
    return {
        **images,
        "joint_states": normal(label + "joint_states", (batch, steps, 7)),
        "gripper_states": 0.04 * normal(label + "gripper_states", (batch, steps, 2)),
        "task_emb": np.tanh(normal(label + "task_emb", (batch, 768))),
    }


def build_libero(checkout: Path):
    """Return LIBERO's policy with its default configuration and the weights of the formulas, in eval mode."""
    from m2distill_training.bench.libero_source import libero_policy

    policy = libero_policy(checkout)
    import torch

    for name, tensor in policy.state_dict().items():
        if not name.endswith(CONSTANTS):
            tensor.copy_(torch.from_numpy(np.asarray(weight(name, tuple(tensor.shape)))))
    return policy


def answers(policy) -> dict[str, np.ndarray]:
    import torch

    def batch(arrays):
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return {"task_emb": tensors.pop("task_emb"), "obs": tensors}

    def numbers(dist):
        return {
            "means": dist.component_distribution.mean.numpy(),
            "scales": dist.component_distribution.stddev.numpy(),
            "logits": dist.mixture_distribution.logits.numpy(),
        }

    with torch.no_grad():
        dist = policy(batch(inputs(FORWARD_STEPS, BATCH)))
    result = {f"forward_{key}": value for key, value in numbers(dist).items()}
    heard = []
    policy.policy_head.register_forward_hook(lambda module, args, dist: heard.append(numbers(dist)))
    policy.reset()
    episode = inputs(QUEUE_STEPS, 1)
    for t in range(QUEUE_STEPS):
        now = {name: value if name == "task_emb" else value[:, t] for name, value in episode.items()}
        policy.get_action(batch(now))
    result.update({f"queue_{key}": np.stack([one[key][0] for one in heard]) for key in heard[0]})
    shapes = {}
    for name, tensor in policy.state_dict().items():
        shapes[name] = list(tensor.shape)
        if name.endswith(CONSTANTS):
            result[name] = tensor.numpy()
    result["shapes_json"] = np.array(json.dumps(shapes))
    result["parameters"] = np.array(sum(p.numel() for p in policy.parameters()))
    return result


if __name__ == "__main__":
    np.savez_compressed(sys.argv[2], **answers(build_libero(Path(sys.argv[1]).resolve())))
