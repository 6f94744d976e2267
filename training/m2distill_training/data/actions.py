"""Range of demonstrated actions."""

import numpy as np

from m2distill_policy.errors import DataError

TOLERANCE = 1e-6  # beyond -1 to 1: rounding, as of actions that were scaled in float64


def clip_rounding(action: np.ndarray, where: str, remedy: str = "scale or drop the demo") -> np.ndarray:
    """Return (T, A) actions within -1 to 1, of which rounding errors are clipped.

    Args:
        action: finite numbers.
        where: name of the actions in a message.
        remedy: what the user can do.

    Raises:
        DataError: an action exceeds the range by more than TOLERANCE.
    """
    largest = np.abs(action).max()
    if largest > 1.0 + TOLERANCE:
        raise DataError(f"{where} reaches {largest:.8g}, allowed -1 to 1; {remedy}")
    return np.clip(action, -1.0, 1.0) if largest > 1.0 else action
