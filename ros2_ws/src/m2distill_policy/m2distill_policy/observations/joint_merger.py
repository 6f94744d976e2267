"""Joint positions by name, merged from messages that may each contain a part of the joints, with a stamp per joint.

Arm and gripper often have drivers of their own, each of which publishes its joints. No clock here.
"""

from collections.abc import Sequence

import numpy as np

from m2distill_policy.errors import SpecError
from m2distill_policy.spec import PolicySpec

MAX_NAMES = 100  # joints in a message about missing ones
JUMP_SLACK_RAD = 0.1  # noise and jitter of the stamps; a jump is a longer way than the speed limit and this allow


class JointMerger:
    """Newest position of each joint of a spec. Messages without one of its joints are ignored.

    A malformed message removes the positions of the joints that it names, until valid ones arrive.

    Args:
        spec: Joint names, gripper joint names and their signs.
        max_speed_rad_s: Speed of an arm joint between two messages above which `jumped` names it.
        max_gap_ns: Time between two messages above which a joint may be anywhere.
    """

    def __init__(self, spec: PolicySpec, max_speed_rad_s: float = float("inf"), max_gap_ns: int = 0):
        self._arm = spec.joint_names
        self._required = spec.joint_names + spec.gripper_joint_names
        self._signs = np.array(spec.gripper_joint_signs, dtype=np.float32)
        self._max_speed_rad_s, self._max_gap_ns = max_speed_rad_s, max_gap_ns
        self.clear()

    def clear(self) -> None:
        """Remove all positions."""
        self._positions: dict[str, float] = {}
        self._stamps_ns: dict[str, int] = {}
        self._faults: dict[str, str] = {}  # by joint, from malformed messages
        self._names: set[str] = set()  # joints that were received, the first ones
        self._renewed: set[str] = set()
        self.complete = False  # every joint has arrived since it was last true
        self.jumped = ""  # arm joint that moved impossibly fast at the last message; empty: none

    def update(self, names: Sequence[str], positions: Sequence[float], stamp_ns: int) -> bool:
        """Process a message; return whether it names a joint of the spec.

        Args:
            names: Joint names, in any order.
            positions: As many positions, rad; m for gripper joints.
            stamp_ns: Stamp of the message.
        """
        self.complete, self.jumped = False, ""
        if len(self._names) < MAX_NAMES:
            self._names.update(names[:MAX_NAMES])
        present = [name for name in self._required if name in names]
        if not present:
            return False
        try:
            values = read_positions(present, names, positions)
        except SpecError as error:
            for name in present:
                self._positions.pop(name, None)
                self._faults[name] = str(error)
            return True
        self.jumped = next((name for name in present if self._jumps(name, values[name], stamp_ns)), "")
        for name in present:
            self._faults.pop(name, None)
            self._positions[name], self._stamps_ns[name] = values[name], stamp_ns
        self._renewed.update(present)
        if len(self._renewed) == len(self._required):
            self._renewed.clear()
            self.complete = True
        return True

    def _jumps(self, name: str, position: float, stamp_ns: int) -> bool:
        if name not in self._positions or name not in self._arm:
            return False
        gap_ns = abs(stamp_ns - self._stamps_ns[name])
        way_rad = abs(position - self._positions[name])
        return gap_ns <= self._max_gap_ns and way_rad > JUMP_SLACK_RAD + self._max_speed_rad_s * gap_ns * 1e-9

    @property
    def problem(self) -> str:
        """Why there are no positions of all joints; empty if there are."""
        if self._faults:
            return next(iter(self._faults.values()))
        missing = [name for name in self._required if name not in self._positions]
        if not missing:
            return ""
        return (
            f"joint_states lacks {missing}, got {sorted(self._names)!r:.500}; correct the joint names of the spec or "
            "of the driver, or start the driver of these joints"
        )

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest joint."""
        return max(self._stamps_ns.values())

    @property
    def oldest(self) -> tuple[str, int]:
        """Oldest joint and its stamp; without its name if all joints have the same stamp."""
        name = min(self._required, key=self._stamps_ns.__getitem__)
        return ("" if self._stamps_ns[name] == self.newest_ns else name), self._stamps_ns[name]

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return joint (J,) float32 rad, and gripper (G,) float32 m with the signs of the training data.

        There must be no `problem`.
        """
        values = np.array([self._positions[name] for name in self._required], dtype=np.float64).astype(np.float32)
        count = len(self._arm)
        return values[:count], values[count:] * self._signs


def read_positions(required: Sequence[str], names: Sequence[str], positions: Sequence[float]) -> dict[str, float]:
    """Return the positions of the required joints by name, from a message that has them all.

    Raises:
        SpecError: A joint is repeated, the lengths differ, or a required position is not finite.
    """
    if len(names) != len(positions):
        raise SpecError(f"joint_states has {len(names)} names and {len(positions)} positions, expected equal numbers")
    by_name = dict(zip(names, positions, strict=True))
    if len(by_name) != len(names):
        raise SpecError(f"joint_states repeats a joint name: {list(names)}")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are rejected
        bad = [name for name in required if not np.isfinite(np.float64(by_name[name]).astype(np.float32))]
    if bad:
        raise SpecError(f"joint_states is not finite at {bad}")
    return {name: float(by_name[name]) for name in required}
