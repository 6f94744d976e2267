"""Training windows: T consecutive steps of one demo, one window per start index, the end padded by repetition.

The padding is robomimic's (`pad_seq_length`), which LIBERO trains with. The order of samples is a pure function of
(seed, step), so a resumed run sees exactly the batches that the uninterrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2distill_training.data.replay import random_order
from m2distill_training.data.store import Store


@dataclass(frozen=True)
class DemoSubset:
    """Some demos of one task, with the task's instruction as the model sees it."""

    store: Store
    text: np.ndarray  # (L,) float32, the instruction's sentence embedding
    demos: tuple[int, ...] | None = None  # None: all
    numbers: tuple[int, ...] | None = None  # in the file, of the demos of a store that `keep` wrote (kept.py)

    @property
    def chosen(self) -> Sequence[int]:
        """The numbers of its demos within the store."""
        return range(self.store.n_demos) if self.demos is None else self.demos

    @property
    def chosen_in_file(self) -> list[int]:
        """The numbers of its demos within the file that they come from, ascending."""
        return sorted(self.chosen if self.numbers is None else (self.numbers[demo] for demo in self.chosen))

    def random_order(self, seed: int, task: int) -> Sequence[int]:
        """The task's one random order, as numbers within the store: what was kept of it is in that order already."""
        return random_order(self.store.n_demos, seed, task) if self.numbers is None else range(self.store.n_demos)


class Windows:
    """The windows of several parts as one indexable set of n windows. What it holds grows by a few numbers per demo:
    windows are worked out when they are asked for."""

    def __init__(self, parts: list[DemoSubset], length: int):
        self.parts = parts
        self.length = length
        demos = [
            (p, part.store.bounds[d], part.store.bounds[d + 1]) for p, part in enumerate(parts) for d in part.chosen
        ]
        self.part_of, self.first, self.end = np.array(demos, np.int64).T  # of each demo: part, frames first to end - 1
        self.windows_to = np.cumsum(self.end - self.first)  # of each demo: number of windows up to and with it

    def __len__(self) -> int:
        return int(self.windows_to[-1])

    def gather(self, ids: np.ndarray) -> dict:
        """Windows `ids` (B,) -> images {camera: (B, T, H, W, 3) uint8}, joint (B, T, J), gripper (B, T, G),
        action (B, T, A), text (B, L), all float32."""
        part_B, frames_BT = self.frames(ids)
        first = self.parts[0]
        B, T = len(ids), self.length
        images = {name: np.empty((B, T, *frames.shape[1:]), np.uint8) for name, frames in first.store.images.items()}
        batch: dict[str, Any] = {"images": images, "text": np.empty((B, len(first.text)), np.float32)}
        batch |= {
            name: np.empty((B, T, getattr(first.store, name).shape[1]), np.float32)
            for name in ("joint", "gripper", "action")
        }
        for row, (p, frames) in enumerate(zip(part_B, frames_BT, strict=True)):
            part = self.parts[p]
            for name, stored in part.store.images.items():
                np.take(stored, frames, 0, out=images[name][row], mode="clip")  # "raise" would copy twice
            for name in ("joint", "gripper", "action"):
                batch[name][row] = getattr(part.store, name)[frames]
            batch["text"][row] = part.text
        return batch

    def frames(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Windows `ids` (B,) -> the number of the part of each (B,), and its frames within that part's store (B, T):
        one window per start index, the last frame of the demo repeated past its end."""
        demo_B = np.searchsorted(self.windows_to, ids, side="right")
        start_B = self.end[demo_B] - (self.windows_to[demo_B] - ids)
        frames_BT = np.minimum(start_B[:, None] + np.arange(self.length), self.end[demo_B, None] - 1)
        return self.part_of[demo_B], frames_BT


def batch_ids(n: int, batch_size: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
    """The ids (batch_size,) int64 of batch `step` in an endless chain of shuffles of range(n).

    Each shuffle is seeded by (seed, its number) alone. A batch may span two shuffles, so every batch is full.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rounds = positions // n
    shuffles = {r: np.random.default_rng([*seed, int(r)]).permutation(n) for r in np.unique(rounds)}
    return np.array([shuffles[r][position % n] for r, position in zip(rounds, positions, strict=True)])
