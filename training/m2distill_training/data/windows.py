"""Training windows: T consecutive steps of one demo, one window per start index, its end padded by repetition.

The padding is robomimic's (`pad_seq_length`), which LIBERO trains with. The order of samples is a pure function of
(seed, step), so a resumed run receives the same batches as an uninterrupted one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m2distill_training.data.replay import coverage_order, grip_phases, random_order
from m2distill_training.data.store import Store


@dataclass(frozen=True)
class DemoSubset:
    """Some demos of one task, with the sentence embedding of its instruction."""

    store: Store
    text: np.ndarray  # (L,) float32, the instruction's sentence embedding
    demos: tuple[int, ...] | None = None  # None: all
    numbers: tuple[int, ...] | None = None  # in the file, for demos of a store in a run's memory (task_memory.py)

    @property
    def chosen(self) -> Sequence[int]:
        """Return the numbers of its demos within the store."""
        return range(self.store.n_demos) if self.demos is None else self.demos

    @property
    def chosen_in_file(self) -> list[int]:
        """Return the numbers of its demos within the file that they come from, ascending."""
        return sorted(self.chosen if self.numbers is None else (self.numbers[demo] for demo in self.chosen))

    def replay_order(self, choice: str, seed: int, task: int) -> Sequence[int]:
        """Return its demos, as numbers within the store, in the order in which a replay memory keeps them.

        Args:
            choice: "random", or "coverage" for that of `coverage_order`. A stored memory already has its order.
            seed: of the run.
            task: place of the task.
        """
        if self.numbers is not None:
            return range(self.store.n_demos)
        chosen = set(self.chosen)
        if choice == "random":
            return [demo for demo in random_order(self.store.n_demos, seed, task) if demo in chosen]
        demos, bounds = sorted(chosen), self.store.bounds
        return [demos[i] for i in coverage_order([self.store.joint[bounds[d] : bounds[d + 1]] for d in demos])]


class Windows:
    """Windows of several demo subsets as one indexable set.

    Its memory grows by a few numbers per demo, because windows are computed on access.
    """

    def __init__(self, subsets: list[DemoSubset], length: int):
        self.subsets = subsets
        self.length = length
        demos = [
            (i, subset.store.bounds[d], subset.store.bounds[d + 1])
            for i, subset in enumerate(subsets)
            for d in subset.chosen
        ]
        self.subset_of, self.first, self.end = np.array(
            demos, np.int64
        ).T  # of each demo: subset, frames first to end - 1
        self.windows_to = np.cumsum(self.end - self.first)  # of each demo: number of windows up to and with it

    def __len__(self) -> int:
        return int(self.windows_to[-1])

    def gather(self, ids: np.ndarray) -> dict:
        """Return the windows `ids` (B,).

        The keys are images {camera: (B, T, H, W, 3) uint8}, and float32 joint (B, T, J), gripper (B, T, G), action (B,
        T, A) and text (B, L).
        """
        subset_B, frames_BT = self.frames(ids)
        first = self.subsets[0]
        B, T = len(ids), self.length
        images = {name: np.empty((B, T, *frames.shape[1:]), np.uint8) for name, frames in first.store.images.items()}
        batch: dict[str, Any] = {"images": images, "text": np.empty((B, len(first.text)), np.float32)}
        batch |= {
            name: np.empty((B, T, getattr(first.store, name).shape[1]), np.float32)
            for name in ("joint", "gripper", "action")
        }
        for row, (i, frames) in enumerate(zip(subset_B, frames_BT, strict=True)):
            subset = self.subsets[i]
            for name, stored in subset.store.images.items():
                np.take(stored, frames, 0, out=images[name][row], mode="clip")  # "raise" would copy twice
            for name in ("joint", "gripper", "action"):
                batch[name][row] = getattr(subset.store, name)[frames]
            batch["text"][row] = subset.text
        return batch

    def phases(self) -> list[list[np.ndarray]]:
        """Return, for every subset, the ids of the windows that begin in each phase of its demos (`grip_phases`)."""
        found: list[dict[int, list[int]]] = [{} for _ in self.subsets]
        for i, first, end, last in zip(self.subset_of, self.first, self.end, self.windows_to, strict=True):
            phases = grip_phases(self.subsets[i].store.action[first:end, -1])
            for window, phase in enumerate(phases.tolist(), last - len(phases)):
                found[i].setdefault(phase, []).append(window)
        return [[np.array(windows) for _, windows in sorted(phases.items())] for phases in found]

    def frames(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of the subset of each window (B,), and its frames in the subset's store (B, T).

        There is one window per start index; the last frame of a demo is repeated past its end.
        """
        demo_B = np.searchsorted(self.windows_to, ids, side="right")
        start_B = self.end[demo_B] - (self.windows_to[demo_B] - ids)
        frames_BT = np.minimum(start_B[:, None] + np.arange(self.length), self.end[demo_B, None] - 1)
        return self.subset_of[demo_B], frames_BT


def evenly_spaced(windows: Windows, n: int) -> dict:
    """Return up to n windows at equal distances, from the first to the last, as `Windows.gather` does."""
    return windows.gather(np.unique(np.linspace(0, len(windows) - 1, n).astype(int)))


def batch_ids(n: int, batch_size: int, step: int, seed: tuple[int, ...]) -> np.ndarray:
    """Return the ids (batch_size,) int64 of batch `step` in an endless chain of shuffles of range(n).

    Each shuffle is seeded by (seed, its number) alone. A batch can span two shuffles, so every batch is full.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rounds = positions // n
    shuffles = {r: np.random.default_rng([*seed, int(r)]).permutation(n) for r in np.unique(rounds)}
    return np.array([shuffles[r][position % n] for r, position in zip(rounds, positions, strict=True)])
