"""Training windows: T consecutive steps of one demo, one window per start index, the end padded by repetition.

The padding is robomimic's (`pad_seq_length`), which LIBERO trains with. The order of samples is a pure function of
(seed, step), so a resumed run sees exactly the batches that the uninterrupted one would have seen.
"""

from dataclasses import dataclass

import numpy as np

from m2distill_training.data.store import Store


@dataclass(frozen=True)
class Part:
    """Some demos of one task, with the task's instruction as the model sees it."""

    store: Store
    text: np.ndarray  # (L,) float32, the instruction's sentence embedding
    demos: tuple[int, ...] | None = None  # None: all


class Windows:
    """The windows of several parts as one indexable set of n windows."""

    def __init__(self, parts: list[Part], length: int):
        tables = [_window_table(part, length) for part in parts]
        self.parts = parts
        self.length = length
        self.part_of = np.repeat(np.arange(len(parts)), [len(table) for table in tables])  # (n,)
        self.frames = np.concatenate(tables)  # (n, T) frame numbers within the part's store

    def __len__(self) -> int:
        return len(self.frames)

    def gather(self, ids: np.ndarray) -> dict:
        """Windows `ids` (B,) -> images {camera: (B, T, H, W, 3) uint8}, joint (B, T, J), gripper (B, T, G),
        action (B, T, A), text (B, L), all float32."""
        first = self.parts[0]
        B, T = len(ids), self.length
        batch = {"images": {name: np.empty((B, T, *frames.shape[1:]), np.uint8)
                            for name, frames in first.store.images.items()},
                 "text": np.empty((B, len(first.text)), np.float32)}
        batch |= {name: np.empty((B, T, getattr(first.store, name).shape[1]), np.float32)
                  for name in ("joint", "gripper", "action")}
        for p in np.unique(self.part_of[ids]):
            rows = np.flatnonzero(self.part_of[ids] == p)
            frames, part = self.frames[ids[rows]], self.parts[p]
            for name, images in part.store.images.items():
                batch["images"][name][rows] = images[frames]
            for name in ("joint", "gripper", "action"):
                batch[name][rows] = getattr(part.store, name)[frames]
            batch["text"][rows] = part.text
        return batch


def _window_table(part: Part, length: int) -> np.ndarray:
    """(windows, T) frame numbers: one row per start index, the last frame of the demo repeated past its end."""
    bounds = part.store.bounds
    demos = range(part.store.n_demos) if part.demos is None else part.demos
    rows = [np.minimum(np.arange(bounds[d], bounds[d + 1])[:, None] + np.arange(length), bounds[d + 1] - 1)
            for d in demos]
    return np.concatenate(rows)


def batch_ids(n: int, batch_size: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
    """The ids (batch_size,) int64 of batch `step` in an endless chain of shuffles of range(n).

    Each shuffle is seeded by (seed, its number) alone. A batch may span two shuffles, so every batch is full.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rounds = positions // n
    shuffles = {r: np.random.default_rng([*seed, int(r)]).permutation(n) for r in np.unique(rounds)}
    return np.array([shuffles[r][position % n] for r, position in zip(rounds, positions, strict=True)])
