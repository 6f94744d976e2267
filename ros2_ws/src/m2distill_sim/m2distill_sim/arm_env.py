"""ArmEnv: a robosuite task with a Panda as plain arrays, the half that its subclasses share.

Physics, controller (OSC_POSE at 20 Hz) and goal predicate are the task's own. Left out is what only costs time:
robosuite's observables, its repeated forward passes, its images. Positions of bodies and sites are, as in robosuite,
those before the last 2 ms of a step.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from m2distill_policy.cameras import CAMERA_NAMES, Camera, find_camera
from m2distill_policy.errors import UserError, unknown_name
from m2distill_sim.assets import AssetSource
from m2distill_sim.renderer import VISUAL_GROUP, Renderer, mujoco
from m2distill_sim.suites import Task

ARENA_CAMERAS = ("frontview", "birdview", "sideview")  # of robosuite's and LIBERO's arenas, besides the table's
SETTLE_STEPS = 5  # zero actions after a reset, LIBERO's evaluation protocol: objects fall onto the floor
ARM_JITTER_RAD = 0.02  # robosuite's default start noise, with which LIBERO's initial states were made
HIDDEN_GROUP = 4
ROBOT_RGB = {
    "link": (0.92, 0.92, 0.92),
    "hand": (0.20, 0.20, 0.24),
    "finger": (0.95, 0.45, 0.75),  # seen at 64 px
    "pedestal": (0.20, 0.20, 0.20),
}


@dataclass(frozen=True)
class SimObservation:
    """What the robot reports after a step. Angles in rad, lengths in m, world frame."""

    images: dict[str, np.ndarray]  # camera -> (H, W, 3) uint8 RGB upright; empty when not rendered
    joint_positions: np.ndarray  # (7,) float64
    gripper_positions: np.ndarray  # (2,) float64, robosuite's signs: open is [0.04, -0.04]
    ee_pos: np.ndarray  # (3,) float64, between the fingertips
    ee_quat_xyzw: np.ndarray  # (4,) float64
    time_s: float


class ArmEnv:
    """One task.

    Args:
        task: The task.
        assets: What it is drawn with.
        env: robosuite's environment, made without a renderer.
        cameras: {name: (height, width)} of the images; {} needs no renderer.
        plain: Draw the arm by its collision shapes, and images as cheaply as renderer.Renderer can.
        views: The simulator's names of cameras that the table m2distill_policy.cameras does not hold.
    """

    def __init__(
        self,
        task: Task,
        assets: AssetSource,
        env,
        cameras: dict[str, tuple[int, int]],
        plain: bool,
        views: Sequence[Camera] = (),
    ):
        self.task, self.assets, self.cameras = task, assets, dict(cameras)
        self._sim_cameras = {name: find_camera(name, views).sim_camera for name in self.cameras}
        self._env = env
        self._sim = env.sim
        self.model: mujoco.MjModel = self._sim.model._model
        self.data: mujoco.MjData = self._sim.data._data
        self._check_model_has_cameras()
        self._substeps = round(env.control_timestep / env.model_timestep)
        if plain:
            _draw_simple_robot(self.model)
        self._renderer: Renderer | None = None
        if self.cameras:
            height, width = (max(size[axis] for size in self.cameras.values()) for axis in (0, 1))
            self._renderer = Renderer(self.model, height, width, plain)

    @property
    def instruction(self) -> str:
        return self.task.instruction

    def reset(
        self, initial_state: np.ndarray | None = None, seed: int | None = None, settle_steps: int = SETTLE_STEPS
    ) -> SimObservation:
        """Start an episode from a flattened state (D,) or, without one, from a placement drawn by `seed`. Furniture is
        no part of a state: LIBERO draws its place within a few centimetres, without a `seed` by the state itself."""
        if initial_state is not None:
            initial_state = _numbers("initial state", initial_state)
            seed = zlib.crc32(initial_state.tobytes()) if seed is None else seed
        with global_seed(seed):
            self._env.reset()
            jitter = np.random.normal(0.0, ARM_JITTER_RAD, 7)
        state = self.state()
        if initial_state is None:
            state[1 + np.asarray(self._robot._ref_joint_pos_indexes)] += jitter
        else:
            if initial_state.shape != state.shape or not np.isfinite(initial_state).all():
                raise UserError(
                    f"initial state has shape {initial_state.shape}, expected {state.shape} finite "
                    f"numbers: [time, qpos, qvel] of {self.task.name}; see suites.initial_states"
                )
            state = initial_state
        self._sim.set_state_from_flattened(state)
        mujoco.mj_forward(self.model, self.data)
        self._after_step()
        self._robot.controller.sim = _SteppedSim(self._sim)
        self._robot.controller.update(force=True)
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)  # robosuite keeps the last episode's
        for _ in range(settle_steps):
            self.step(np.zeros(7), render=False)
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> SimObservation:
        """One control step of 50 ms. `action` (7,) in [-1, 1], clipped: see ActionSpec for its meaning."""
        action = _numbers("action", action)
        if action.shape != (7,):
            raise UserError(f"action has shape {action.shape}, expected (7,): translation, rotation, gripper")
        if not np.isfinite(action).all():
            raise UserError(f"action {action.tolist()} is not finite; the policy or the caller is broken")
        for substep in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            self._robot.control(action, policy_step=substep == 0)
            mujoco.mj_step2(self.model, self.data)
        self._after_step()
        return self.observe(render)

    def observe(self, render: bool = True) -> SimObservation:
        robot, qpos = self._robot, self.data.qpos
        quat_wxyz = self.data.xquat[self.model.body(robot.robot_model.eef_name).id]
        return SimObservation(
            images={name: self.render(name) for name in self.cameras} if render else {},
            joint_positions=qpos[robot._ref_joint_pos_indexes].copy(),
            gripper_positions=qpos[robot._ref_gripper_joint_pos_indexes].copy(),
            ee_pos=self.data.site_xpos[robot.eef_site_id].copy(),
            ee_quat_xyzw=np.roll(quat_wxyz, -1),
            time_s=float(self.data.time),
        )

    def render(self, camera: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, of one of this environment's cameras."""
        if self._renderer is None or camera not in self.cameras:
            raise UserError(unknown_name("camera", camera, self.cameras))
        return self._renderer.render(self.data, self._sim_cameras[camera], *self.cameras[camera])

    def success(self) -> bool:
        """The task's goal predicate, now."""
        return bool(self._env._check_success())

    def state(self) -> np.ndarray:
        """(D,) float64: [time, qpos, qvel], as in LIBERO's initial states and datasets."""
        return self._sim.get_state().flatten()

    def model_xml(self) -> str:
        return self._env.model.get_xml()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def _robot(self):
        return self._env.robots[0]

    def _check_model_has_cameras(self) -> None:
        there = [self.model.camera(i).name for i in range(self.model.ncam)]
        for name, sim_camera in self._sim_cameras.items():
            if sim_camera not in there:
                raise UserError(f"camera {name}: {unknown_name(f'camera of {self.task.name}', sim_camera, there)}")

    def _after_step(self) -> None:
        """What a task keeps track of besides the simulation's state."""


class _SteppedSim:
    """What the controller sees of the simulation. mj_step1 has just brought positions and velocities up to date, which
    is all that OSC reads, so the full forward pass that robosuite asks for at every substep has nothing left to do."""

    def __init__(self, sim):
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        pass


def check_cameras(cameras: dict[str, tuple[int, int]], views: Sequence[Camera] = ()) -> None:
    """Check the names before a task is built, which takes seconds. Raises UserError."""
    known = (*CAMERA_NAMES, *(view.name for view in views), *ARENA_CAMERAS)
    for name in cameras:
        if name not in known:
            raise UserError(unknown_name("camera", name, known))


@contextmanager
def global_seed(seed: int | None) -> Iterator[None]:
    """robosuite and LIBERO draw from numpy's global generator; the caller's own draws go on as if they did not."""
    legacy = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(legacy)


def _numbers(what: str, values) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} is {str(values)[:80]!r}, expected an array of numbers") from None


def _draw_simple_robot(model: mujoco.MjModel) -> None:
    """Draw arm and pedestal by their collision shapes: 5 thousand faces instead of 130 and 33 thousand. Physics does
    not read these."""
    for geom in range(model.ngeom):
        name, mesh = model.geom(geom).name, model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
        if (mesh and name.endswith("_collision")) or name == "mount0_pedestal_col":
            model.geom_group[geom] = VISUAL_GROUP
            model.geom_matid[geom] = -1
            model.geom_rgba[geom, :3] = next(rgb for part, rgb in ROBOT_RGB.items() if part in name)
            model.geom_rgba[geom, 3] = 1
        elif mesh and name.startswith(("robot0_", "gripper0_", "mount0_")):
            model.geom_group[geom] = HIDDEN_GROUP
