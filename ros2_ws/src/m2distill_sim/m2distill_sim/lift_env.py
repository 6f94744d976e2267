"""LiftEnv: robosuite's Lift with the observations and actions of LiberoEnv, in the style of the built-in assets."""

from collections.abc import Sequence

import numpy as np

from m2distill_policy.cameras import Camera
from m2distill_sim import lift
from m2distill_sim.arm_env import ArmEnv, check_cameras, global_seed, quiet_robosuite
from m2distill_sim.renderer import mujoco
from m2distill_sim.suites import find_task


class LiftEnv(ArmEnv):
    """Environment of robosuite's Lift. The goal is a cube 4 cm above the table top, as in robosuite."""

    def __init__(
        self,
        cameras: dict[str, tuple[int, int]] | None = None,
        views: Sequence[Camera] = (),
        twin: ArmEnv | None = None,
    ):
        """Load the task. `cameras` maps names to (height, width), none needs no renderer; see LiberoEnv."""
        cameras = cameras or {}
        check_cameras(cameras, views)
        super().__init__(find_task(lift.SUITE, lift.NAME), lift.assets(), make_env(), cameras, True, views, twin)
        self.set_cube((lift.CUBE_HALF_M,) * 3)

    def set_cube(self, half_m: tuple[float, float, float]) -> None:
        """Set the cube's half sides; robosuite draws each from 20 to 22 mm per simulation."""
        for geom in range(self.model.ngeom):
            if self.model.geom(geom).name.startswith("cube_"):
                self.model.geom_size[geom] = half_m
                self.model.geom_rbound[geom] = np.linalg.norm(half_m)

    def show(self, state: np.ndarray) -> None:
        """Set a recorded state (D,) without a step of physics."""
        self._sim.set_state_from_flattened(state)
        mujoco.mj_forward(self.model, self.data)


def make_env(robot: str = "Panda"):
    """Return robosuite's Lift with this robot, without images."""
    with quiet_robosuite(), global_seed(0):  # the cube's size is drawn
        import robosuite

        return robosuite.make(
            "Lift",
            robots=robot,
            controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            initialization_noise=None,
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=20,
            ignore_done=True,
            hard_reset=False,
        )
