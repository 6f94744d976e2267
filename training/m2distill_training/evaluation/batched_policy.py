"""Inference for several episodes at once, which share the forward passes of one network.

An episode's actions depend neither on the others nor on their number. Sums over a batch may be rounded differently for
another size of the batch or another row in it. So the batch always has the same size, rows without an episode are zero,
and an episode's row follows from its start. Each episode draws from a random generator of its own.
"""

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from m2distill_policy.action import ActionSample
from m2distill_policy.checkpoint import Checkpoint
from m2distill_policy.control.inference import draw_action, make_sample
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.models.optimize import optimize_for_inference
from m2distill_policy.observations.observation import Observation


class EpisodePolicy:
    """State of one episode in a batch: history and random generator. It is the policy of the episode's session.

    The session's `begin_tick` and `end_tick` are used; a step of its own does not exist.
    """

    def __init__(self, history: int, sampling: str, seed: int):
        self.sampling = sampling
        self.generator = torch.Generator()
        self.generator.manual_seed(seed)
        self.tokens: deque[Tensor] = deque(maxlen=history)  # each (N, D)
        self.text: np.ndarray | None = None  # (L,)

    def reset(self) -> None:
        """Clear the history."""
        self.tokens.clear()

    def set_text(self, embedding_L: np.ndarray) -> None:
        """Set the embedding of the instruction; clear the history."""
        self.text = embedding_L
        self.reset()

    def step(self, observation: Observation) -> ActionSample:
        """Raise RuntimeError: BatchedPolicy.step serves all episodes of a batch at once."""
        raise RuntimeError("call BatchedPolicy.step with the observations of all episodes")


class BatchedPolicy:
    """Network that serves one episode in each of `rows` rows.

    Args:
        checkpoint: The trained policy.
        rows: Number of rows of every batch.
    """

    def __init__(self, checkpoint: Checkpoint, rows: int):
        self.rows, self._history = rows, checkpoint.spec.history
        self._network = optimize_for_inference(checkpoint.build_policy())
        self._images_BT = {
            camera.name: np.zeros((rows, 1, camera.height, camera.width, 3), np.uint8)
            for camera in checkpoint.spec.cameras
        }
        self._joint_BTJ = np.zeros((rows, 1, len(checkpoint.spec.joint_names)), np.float32)
        self._gripper_BTG = np.zeros((rows, 1, len(checkpoint.spec.gripper_joint_names)), np.float32)
        self._text_BL = np.zeros((rows, checkpoint.spec.text_width), np.float32)

    @torch.inference_mode()
    def step(self, live: Mapping[int, tuple[EpisodePolicy, Observation]]) -> dict[int, ActionSample]:
        """Append one observation to the history of each live row and return a sample of its action distribution."""
        for row, (policy, observation) in live.items():
            if policy.text is None:
                raise RuntimeError("call set_text() before step()")
            for name, image in observation.images.items():
                self._images_BT[name][row, 0] = image
            self._joint_BTJ[row, 0], self._gripper_BTG[row, 0] = observation.joint, observation.gripper
            self._text_BL[row] = policy.text
        batch = to_model_input(self._images_BT, self._joint_BTJ, self._gripper_BTG, self._text_BL)
        tokens_BTND = self._network.encode_step(batch)
        newest_B = torch.zeros(self.rows, dtype=torch.long)
        histories = tokens_BTND.new_zeros(self.rows, self._history, *tokens_BTND.shape[2:])
        for row, (policy, _) in live.items():
            policy.tokens.append(tokens_BTND[row, 0].clone())
            newest_B[row] = len(policy.tokens) - 1
            histories[row, : len(policy.tokens)] = torch.stack(tuple(policy.tokens))
        # A token attends to earlier steps alone, so the zeros after the newest step change nothing.
        mixture = self._network.decode_all(histories, newest_B)
        drawn = {row: draw_action(mixture, row, p.sampling, p.generator) for row, (p, _) in live.items()}
        actions_BA = mixture.component_distribution.mean[:, 0].clone()
        for row, (_, action) in drawn.items():
            actions_BA[row] = action
        log_probs = mixture.log_prob(actions_BA).tolist()
        return {row: make_sample(mixture, row, mode, action, log_probs[row]) for row, (mode, action) in drawn.items()}
