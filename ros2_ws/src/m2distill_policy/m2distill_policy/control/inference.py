"""Inference with a loaded checkpoint, one step at a time, as in LIBERO's `get_action`.

Each step is encoded once, its tokens join a queue of at most `history` steps, and the mixture of the newest step gives
the action.
"""

from collections import deque

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MixtureSameFamily

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES, ActionSample
from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.control.precision import BACKENDS, DEVICES, PRECISIONS
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.models.mixture_head import mixture
from m2distill_policy.models.optimize import optimize_for_inference
from m2distill_policy.observations.observation import Observation

LOW_NOISE_STD = 1e-4  # in action units, the value of robomimic's and LIBERO's `low_eval_noise`


class InferencePolicy:
    """Policy that implements `session.StepPolicy`.

    It samples from a random generator of its own, so that the seed and the observations determine all actions.

    Args:
        checkpoint: The trained policy.
        sampling: One of SAMPLING_MODES.
        seed: Seed of the generator.
        precision: One of PRECISIONS, for the convolutions.
        backend: One of BACKENDS, for the convolutions.
        device: One of DEVICES, for the network. Actions are drawn on the CPU, from the same numbers for both.

    Raises:
        UserError: A name is unknown, the backend is missing or differs from torch, or there is no GPU.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sampling: str = DEFAULT_SAMPLING,
        seed: int = 0,
        precision: str = "float32",
        backend: str = "torch",
        device: str = "cpu",
    ):
        if sampling not in SAMPLING_MODES:
            raise UserError(unknown_name("sampling mode", sampling, SAMPLING_MODES))
        if precision not in PRECISIONS:
            raise UserError(unknown_name("precision", precision, PRECISIONS))
        if backend not in BACKENDS:
            raise UserError(unknown_name("inference backend", backend, BACKENDS))
        _require_device(device, backend)
        self.sampling, self._precision, self._device = sampling, getattr(torch, precision), torch.device(device)
        policy = checkpoint.build_policy().to(self._device)
        self._policy = optimize_for_inference(policy, self._precision, backend)
        self._generator = torch.Generator()
        self._seed = seed
        self.reseed()
        self._tokens: deque[Tensor] = deque(maxlen=checkpoint.spec.history)  # each (1, 1, N, D)
        self._text: np.ndarray | None = None  # (1, L)

    def reset(self) -> None:
        """Clear the history."""
        self._tokens.clear()

    def reseed(self) -> None:
        """Restart the random generator from its seed."""
        self._generator.manual_seed(self._seed)

    def set_text(self, embedding_L: np.ndarray) -> None:
        """Set the embedding (L,) of the instruction; clear the history, which was encoded with the previous one."""
        self._text = embedding_L[None].copy()
        self.reset()

    @torch.inference_mode()
    def step(self, observation: Observation) -> ActionSample:
        """Append one observation to the history and return a sample of its action distribution."""
        if self._text is None:
            raise RuntimeError("call set_text() before step()")
        batch = to_model_input(
            {name: image[None, None] for name, image in observation.images.items()},
            observation.joint[None, None],
            observation.gripper[None, None],
            self._text,
            self._device,
        )
        with torch.autocast(self._device.type, self._precision, enabled=self._precision != torch.float32):
            self._tokens.append(self._policy.encode_step(batch))
        mixture = _on_cpu(self._policy.decode(torch.cat(tuple(self._tokens), 1)))
        mode, action = draw_action(mixture, 0, self.sampling, self._generator)
        return make_sample(mixture, 0, mode, action, float(mixture.log_prob(action[None])))


def draw_action(mixture: MixtureSameFamily, row: int, sampling: str, generator: torch.Generator) -> tuple[int, Tensor]:
    """Return a mode and an action (A,), drawn from one row of a mixture with batch shape (B,)."""
    weights, means = mixture.mixture_distribution.probs[row], mixture.component_distribution.mean[row]  # (K,), (K, A)
    if sampling == "mode":
        mode = int(weights.argmax())
        return mode, means[mode]
    mode = int(torch.multinomial(weights, 1, generator=generator))
    std = mixture.component_distribution.stddev[row, mode] if sampling == "stochastic" else LOW_NOISE_STD
    return mode, means[mode] + std * torch.randn(means.shape[1], generator=generator)


def make_sample(mixture: MixtureSameFamily, row: int, mode: int, action: Tensor, log_prob: float) -> ActionSample:
    """Return the sample of an action that was drawn from one row of a mixture."""
    weights = mixture.mixture_distribution.probs[row]
    entropy = float(torch.special.entr(weights).sum())
    return ActionSample(action.numpy().astype(np.float32), mode, log_prob, entropy, tuple(weights.tolist()))


def _require_device(device: str, backend: str) -> None:
    """Raise UserError for a device that cannot be used."""
    if device not in DEVICES:
        raise UserError(unknown_name("device", device, DEVICES))
    if device == "cuda" and backend != "torch":
        raise UserError(f"inference_backend {backend} runs on the CPU only; set device to cpu, or the backend to torch")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, and torch finds no GPU here; set device to cpu")


def _on_cpu(dist: MixtureSameFamily) -> MixtureSameFamily:
    """Return a mixture with its numbers on the CPU."""
    logits = dist.mixture_distribution.logits
    if logits.device.type == "cpu":
        return dist
    mean, std = dist.component_distribution.mean, dist.component_distribution.stddev
    return mixture(logits.cpu(), mean.cpu(), std.cpu())
