"""Whether a file stores observations before or after their actions, read from its numbers.

`states` are the simulator's before each action: time, positions, velocities; the arm's joints are the first positions.
In LIBERO's files `obs/joint_states` of a step are those of the next state. In files that others have regenerated, such
as OpenVLA's, they are those of the state in the same row.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from m2distill_policy.errors import DataError
from m2distill_training.data.libero.hdf5_checks import member

ARM = slice(1, 8)  # columns of `states` with the arm's joints
CLEARLY = 5.0  # ratio of the distances from which on one convention is evident
DEMOS = 3  # that are looked at


def obs_after_action(data: h5py.Group, path: Path, demo_names: Sequence[str]) -> bool:
    """Return True if obs[j] was observed after actions[j]: from the attribute, the states, or LIBERO's convention.

    Raises:
        DataError: attribute and states disagree.
    """
    stated = data.attrs.get("obs_after_action")
    seen = next((x for name in demo_names[:DEMOS] if (x := _from_states(data, name)) is not None), None)
    if stated is not None and seen is not None and bool(stated) is not seen:
        raise DataError(
            f"{path}: obs_after_action of /data is {bool(stated)}, but obs/joint_states equal the states "
            f"{'after' if seen else 'before'} the actions; correct the attribute"
        )
    return bool(stated) if stated is not None else True if seen is None else seen


def _from_states(data: h5py.Group, demo: str) -> bool | None:
    """Return the convention that a demo's numbers show; None if there are none or the arm hardly moves."""
    states, joints = _table(data, f"{demo}/states"), _table(data, f"{demo}/obs/joint_states")
    if states is None or joints is None:
        return None
    if len(states) != len(joints) or len(states) < 3 or states.shape[1] < ARM.stop or joints.shape[1] != 7:
        return None
    arm, seen = np.asarray(states[:, ARM], np.float64), np.asarray(joints[:], np.float64)
    before = float(np.median(np.abs(seen[:-1] - arm[:-1]).max(1)))
    after = float(np.median(np.abs(seen[:-1] - arm[1:]).max(1)))
    if not np.isfinite([before, after]).all() or max(before, after) < CLEARLY * min(before, after):
        return None
    return after < before


def _table(data: h5py.Group, path: str) -> h5py.Dataset | None:
    found = member(data, path)
    return found if isinstance(found, h5py.Dataset) and found.ndim == 2 and found.dtype.kind in "fiu" else None
