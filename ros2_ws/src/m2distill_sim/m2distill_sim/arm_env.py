"""ArmEnv: base class of robosuite tasks with a Panda arm, as plain arrays.

Physics, controller (OSC_POSE at 20 Hz) and goal predicate are the task's own. For speed, robosuite's observables, its
repeated forward passes and its images are not used. As in robosuite, positions of bodies and sites are those before the
last 2 ms of a step.
"""

import contextlib
import logging
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from m2distill_policy.cameras import CAMERA_NAMES, Camera, find_camera
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.observations.poses import axis_angle
from m2distill_sim.assets import CLUSTERED, MATTE, AssetSource
from m2distill_sim.mesh_clustering import cluster_visual_meshes
from m2distill_sim.osc import OscPose
from m2distill_sim.renderer import VISUAL_GROUP, Renderer, mujoco
from m2distill_sim.suites import Task

ARENA_CAMERAS = ("frontview", "birdview", "sideview")  # of robosuite's and LIBERO's arenas, besides the table's
SETTLE_STEPS = 5  # zero actions after a reset, during which objects fall onto the floor (LIBERO's evaluation)
ARM_JITTER_RAD = 0.02  # robosuite's default initialization noise, with which LIBERO's initial states were made
HIDDEN_GROUP = 4
WXYZ_TO_XYZW = [1, 2, 3, 0]
ROBOSUITE_LOG = "/tmp/robosuite.log"
ROBOT_RGB = {
    "link": (0.92, 0.92, 0.92),
    "hand": (0.20, 0.20, 0.24),
    "finger": (0.95, 0.45, 0.75),  # visible at 64 px
    "pedestal": (0.20, 0.20, 0.20),
}


@dataclass(frozen=True)
class SimObservation:
    """Observation of the robot after a step. Angles in rad, lengths in m, world frame."""

    images: dict[str, np.ndarray]  # camera -> (H, W, 3) uint8 RGB upright; empty if not rendered
    joint_positions: np.ndarray  # (7,) float64
    gripper_positions: np.ndarray  # (2,) float64, robosuite's signs: open is [0.04, -0.04]
    ee_pos: np.ndarray  # (3,) float64, between the fingertips
    ee_quat_xyzw: np.ndarray  # (4,) float64
    time_s: float

    @property
    def ee_axis_angle(self) -> np.ndarray:
        """Orientation of the hand as axis times angle (3,) in rad, by robosuite's formula.

        The angle is in [0, 2 pi], so that it is continuous if the hand points down.
        """
        return axis_angle(self.ee_quat_xyzw)


class ArmEnv:
    """Environment of one task."""

    def __init__(
        self,
        task: Task,
        assets: AssetSource,
        env,
        cameras: dict[str, tuple[int, int]],
        plain: bool,
        views: Sequence[Camera] = (),
        twin: "ArmEnv | None" = None,
    ):
        """Wrap an environment of robosuite.

        Args:
            task: the task of `env`.
            assets: the assets of `env`.
            env: robosuite's environment, created without a renderer.
            cameras: maps names of cameras to (height, width) of their images; {} needs no renderer.
            plain: draw the arm by its collision shapes, and images without costly effects (see Renderer).
            views: cameras beyond the table of m2distill_policy.cameras.
            twin: an open environment of the same task, assets and cameras, whose renderer serves both. It takes most of
                the memory and of the time to load. The owner is closed last.
        """
        self.task, self.assets, self.cameras = task, assets, dict(cameras)
        self._sim_cameras = {name: find_camera(name, views).sim_camera for name in self.cameras}
        self._env = env
        self._sim = env.sim
        self.model: mujoco.MjModel = self._sim.model._model
        self.data: mujoco.MjData = self._sim.data._data
        self._check_model_has_cameras()
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR  # nobody reads the force sensors
        self._substeps = round(env.control_timestep / env.model_timestep)
        self._controller: OscPose | None = None  # of the episode
        if plain:
            _draw_collision_shapes(self.model)
        self._renderer: Renderer | None = None
        self._owns_renderer = twin is None
        if twin is not None:
            if (twin.task, twin.assets, twin.cameras) != (task, assets, self.cameras):
                raise ValueError(f"the twin is an environment of {twin.task.name}, {twin.assets.label}, {twin.cameras}")
            self._renderer = twin._renderer
        elif self.cameras:
            if CLUSTERED in assets.drawings:
                cluster_visual_meshes(self.model)
            height, width = (max(size[axis] for size in self.cameras.values()) for axis in (0, 1))
            self._renderer = Renderer(self.model, height, width, plain, MATTE in assets.drawings)

    @property
    def instruction(self) -> str:
        return self.task.instruction

    def reset(
        self, initial_state: np.ndarray | None = None, seed: int | None = None, settle_steps: int = SETTLE_STEPS
    ) -> SimObservation:
        """Start an episode.

        Furniture is not part of a state: LIBERO draws its position within a few centimetres.

        Args:
            initial_state: flattened state (D,); None draws a placement.
            seed: of the placement and of the furniture; None derives the furniture's from the state.
            settle_steps: control steps with a zero action before the episode begins.

        Raises:
            UserError: the state has another shape than the task's, or is not finite.
        """
        if initial_state is not None:
            initial_state = _float_array("initial state", initial_state)
            seed = zlib.crc32(initial_state.tobytes()) if seed is None else seed
        self._before_reset()
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
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)  # robosuite keeps the last episode's
        self._controller = OscPose(self._robot, self.model, self.data)
        for _ in range(settle_steps):
            self.step(np.zeros(7), render=False)
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> SimObservation:
        """Run one control step of 50 ms.

        Args:
            action: (7,) in [-1, 1], otherwise clipped: translation, rotation, gripper (see ActionSpec).
            render: include the images of all cameras in the observation.

        Raises:
            UserError: the action has another shape or is not finite; the state has not changed.
        """
        action = _float_array("action", action)
        if action.shape != (7,):
            raise UserError(f"action has shape {action.shape}, expected (7,): translation, rotation, gripper")
        if not np.isfinite(action).all():
            raise UserError(f"action {action.tolist()} is not finite; the policy or the caller is defective")
        assert self._controller is not None  # an episode has begun
        for substep in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            if substep == 0:
                self._controller.set_goal(action)
            self._controller.apply()
            mujoco.mj_step2(self.model, self.data)
        self._after_step()
        return self.observe(render)

    def observe(self, render: bool = True) -> SimObservation:
        """Return the observation of the current state."""
        robot, qpos = self._robot, self.data.qpos
        quat_wxyz = self.data.xquat[self.model.body(robot.robot_model.eef_name).id]
        return SimObservation(
            images={name: self.render(name) for name in self.cameras} if render else {},
            joint_positions=qpos[robot._ref_joint_pos_indexes].copy(),
            gripper_positions=qpos[robot._ref_gripper_joint_pos_indexes].copy(),
            ee_pos=self.data.site_xpos[robot.eef_site_id].copy(),
            ee_quat_xyzw=quat_wxyz[WXYZ_TO_XYZW],
            time_s=float(self.data.time),
        )

    def joint_velocities(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the velocities of the arm (7,) in rad/s and of the fingers (2,) in m/s, with robosuite's signs."""
        robot, qvel = self._robot, self.data.qvel
        return qvel[robot._ref_joint_vel_indexes].copy(), qvel[robot._ref_gripper_joint_vel_indexes].copy()

    def render(self, camera: str) -> np.ndarray:
        """Return the image of one of this environment's cameras, (H, W, 3) uint8 RGB, upright."""
        if self._renderer is None or camera not in self.cameras:
            raise UserError(unknown_name("camera", camera, self.cameras))
        return self._renderer.render(self.model, self.data, self._sim_cameras[camera], *self.cameras[camera])

    def success(self) -> bool:
        """Return True if the task's goal predicate holds in the current state."""
        return bool(self._env._check_success())

    def state(self) -> np.ndarray:
        """Return the state (D,) float64, [time, qpos, qvel], as in LIBERO's initial states and datasets."""
        return self._sim.get_state().flatten()

    def model_xml(self) -> str:
        """Return the MJCF of the model."""
        return self._env.model.get_xml()

    def close(self) -> None:
        """Free the renderer and the simulator; a second call does nothing. A closed environment cannot be used."""
        if self._renderer is not None:
            if self._owns_renderer:
                self._renderer.close()
            self._renderer = None
        if self._env is not None:
            vars(self._env).clear()  # its robots, objects and samplers refer back to it, so it would never be freed
            self._env = self._sim = self._controller = None
            del self.model, self.data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def _robot(self):
        return self._env.robots[0]

    def _check_model_has_cameras(self) -> None:
        present = [self.model.camera(i).name for i in range(self.model.ncam)]
        for name, sim_camera in self._sim_cameras.items():
            if sim_camera not in present:
                raise UserError(f"camera {name}: {unknown_name(f'camera of {self.task.name}', sim_camera, present)}")

    def _before_reset(self) -> None:
        """Restore what the last episode changed in the model."""

    def _after_step(self) -> None:
        """Update what a task tracks besides the simulator's state."""


def check_cameras(cameras: dict[str, tuple[int, int]], views: Sequence[Camera] = ()) -> None:
    """Raise UserError for an unknown camera, before a task is built, which takes seconds."""
    known = (*CAMERA_NAMES, *(view.name for view in views), *ARENA_CAMERAS)
    for name in cameras:
        if name not in known:
            raise UserError(unknown_name("camera", name, known))


@contextlib.contextmanager
def global_seed(seed: int | None) -> Iterator[None]:
    """Seed numpy's global generator, from which robosuite and LIBERO draw, and restore it afterwards."""
    legacy = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(legacy)


@contextlib.contextmanager
def quiet_robosuite() -> Iterator[None]:
    """Import robosuite and create its environments without output and without its log file.

    At import robosuite opens a file in /tmp that belongs to the first user of the machine who imported it. The import
    of any other user would fail, so the file is replaced by a null handler. It also compares $MUJOCO_EGL_DEVICE_ID with
    $CUDA_VISIBLE_DEVICES, which concerns its own renderer alone.
    """
    device = None if "robosuite" in sys.modules else os.environ.pop("MUJOCO_EGL_DEVICE_ID", None)
    file_handler = logging.FileHandler

    def open_handler(filename, *args, **kwargs) -> logging.Handler:
        return logging.NullHandler() if filename == ROBOSUITE_LOG else file_handler(filename, *args, **kwargs)

    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it warns that its private macro file is missing
    logging.FileHandler = open_handler  # type: ignore[assignment, misc]
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logging.FileHandler = file_handler  # type: ignore[misc]
        if device is not None:
            os.environ["MUJOCO_EGL_DEVICE_ID"] = device


def _float_array(what: str, values) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} is {str(values)[:80]!r}, expected an array of numbers") from None


def _draw_collision_shapes(model: mujoco.MjModel) -> None:
    """Draw arm and pedestal by their collision shapes.

    They have 5 thousand faces instead of 130 and 33 thousand. These fields do not affect physics.
    """
    for geom in range(model.ngeom):
        name, mesh = model.geom(geom).name, model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
        if (mesh and name.endswith("_collision")) or name == "mount0_pedestal_col":
            model.geom_group[geom] = VISUAL_GROUP
            model.geom_matid[geom] = -1
            model.geom_rgba[geom, :3] = next(rgb for part, rgb in ROBOT_RGB.items() if part in name)
            model.geom_rgba[geom, 3] = 1
        elif mesh and name.startswith(("robot0_", "gripper0_", "mount0_")):
            model.geom_group[geom] = HIDDEN_GROUP
