"""How threads of OpenMP wait for work. It must be set before torch is imported, so this module imports nothing."""

from collections.abc import Mapping

# A thread that waits spins for at most this many turns, then sleeps. Without a limit a training beside other programs
# takes many times as long; with none at all, waking costs a third of the speed on idle cores (docs/benchmarks.md).
SPIN_COUNT = 500


def wait_settings(present: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables to set; none if `present` already has one of them."""
    ours = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(SPIN_COUNT)}
    return {} if ours.keys() & present.keys() else ours
