"""Image tokens of a frozen policy, kept by window.

Without augmentation a window has the same images in every gradient step, and so the same tokens from the teacher, whose
image encoders take a quarter of a step of `m2distill`. Letters: B samples, T steps, D token width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LIMIT_BYTES = 256 << 20  # 170,000 windows of the preset `small`


class TokenCache:
    """Tokens of windows, equal bit for bit to those that an encoder returns.

    A group of samples is encoded as a whole unless every one of its windows is known: an encoder then always receives
    groups of the same sizes. Whether a token depends on the other samples of its group is a property of the libraries
    on this machine. The first known group of each size is therefore encoded again, and the cache switches itself off if
    a bit differs.

    Args:
        windows: number of windows; their numbers are 0 .. windows - 1.
        limit_bytes: memory for the tokens. Windows beyond it are encoded every time.
    """

    def __init__(self, windows: int, limit_bytes: int = LIMIT_BYTES):
        self._place = torch.full((windows,), -1)  # of each window's tokens, -1: unknown
        self._limit_bytes, self._used = limit_bytes, 0
        self._tokens: dict[str, Tensor] = {}  # each (places, T, D)
        self._compared: set[int] = set()  # sizes of groups
        self.enabled = True

    def tokens(self, windows_B: Tensor, encode: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tokens (B, T, D) by name of a group of samples.

        Args:
            windows_B: number of each sample's window, -1 for a sample that is no window of the stage.
            encode: computes the tokens of the group.
        """
        if not self.enabled:
            return encode()
        place_B = torch.where(windows_B < 0, -1, self._place[windows_B])
        if bool((place_B < 0).any()):
            found = encode()
            self._keep(windows_B, place_B, found)
            return found
        known = {name: x[place_B.to(x.device)] for name, x in self._tokens.items()}
        if len(windows_B) in self._compared:
            return known
        self._compared.add(len(windows_B))
        found = encode()
        self.enabled = all(torch.equal(x, known[name]) for name, x in found.items())
        if not self.enabled:
            self._tokens.clear()
        return found

    def _keep(self, windows_B: Tensor, place_B: Tensor, found: dict[str, Tensor]) -> None:
        if not self._tokens:
            row_bytes = sum(x[0].nbytes for x in found.values())
            places = min(len(self._place), self._limit_bytes // row_bytes)
            self._tokens = {name: x.new_empty(places, *x.shape[1:]) for name, x in found.items()}
        places = len(next(iter(self._tokens.values())))
        rows = torch.nonzero((windows_B >= 0) & (place_B < 0))[: places - self._used, 0]
        if len(rows) == 0:
            return
        new = slice(self._used, self._used + len(rows))
        for name, x in found.items():
            self._tokens[name][new] = x[rows.to(x.device)]
        self._place[windows_B[rows]] = torch.arange(new.start, new.stop)
        self._used = new.stop
