"""Environment of any task: of LIBERO's suites, or robosuite's Lift."""

from collections.abc import Sequence

from m2distill_policy.cameras import Camera
from m2distill_sim import lift
from m2distill_sim.arm_env import ArmEnv
from m2distill_sim.assets import AssetSource
from m2distill_sim.libero_env import LiberoEnv
from m2distill_sim.lift_env import LiftEnv
from m2distill_sim.suites import find_task


def make_env(
    suite: str,
    task: int | str,
    assets: AssetSource | None = None,
    cameras: dict[str, tuple[int, int]] | None = None,
    views: Sequence[Camera] = (),
    twin: ArmEnv | None = None,
) -> ArmEnv:
    """Create the environment of a task; arguments as in LiberoEnv. Raises UserError."""
    if suite == lift.SUITE:
        find_task(suite, task)
        return LiftEnv(cameras, views, twin)
    return LiberoEnv(suite, task, assets, cameras, views, twin)
