"""LiberoEnv: one LIBERO task as plain arrays. The only import of robosuite and LIBERO.

Physics, controller (OSC_POSE at 20 Hz), initial states and goal predicates are LIBERO's. Left out is what only costs
time: robosuite's observables, its repeated forward passes, its pictures. Positions of bodies and sites are, as in
robosuite, those before the last 2 ms of a step.
"""

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass

import numpy as np

from m2distill_policy.errors import AssetError, UserError, unknown_name
from m2distill_sim import builtin
from m2distill_sim.assets import AssetSource, cache_folder, find_assets, libero_package, write_folder
from m2distill_sim.renderer import VISUAL_GROUP, Renderer, mujoco
from m2distill_sim.suites import find_task

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}  # our name -> LIBERO's
SETTLE_STEPS = 5  # zero actions after a reset, LIBERO's evaluation protocol: objects fall onto the floor
ARM_JITTER_RAD = 0.02  # robosuite's default start noise, with which LIBERO's initial states were made
HIDDEN_GROUP = 4
ROBOT_RGB = {"link": (0.92, 0.92, 0.92), "hand": (0.20, 0.20, 0.24), "finger": (0.95, 0.45, 0.75)}  # seen at 64 px


@dataclass(frozen=True)
class SimObservation:
    """What the robot reports after a step. Angles in rad, lengths in m, world frame."""

    images: dict[str, np.ndarray]  # camera -> (H, W, 3) uint8 RGB upright; empty when not rendered
    joint_positions: np.ndarray  # (7,) float64
    gripper_positions: np.ndarray  # (2,) float64, robosuite's signs: open is [0.04, -0.04]
    ee_pos: np.ndarray  # (3,) float64, between the fingertips
    ee_quat_xyzw: np.ndarray  # (4,) float64
    time_s: float


class LiberoEnv:
    """One task of one suite. `cameras` maps "agentview" and "wrist" to (height, width); {} needs no renderer."""

    def __init__(self, suite: str, task: int | str, assets: AssetSource | None = None,
                 cameras: dict[str, tuple[int, int]] | None = None):
        self.task = find_task(suite, task)
        self.assets = find_assets() if assets is None else assets
        self.cameras = dict(cameras or {})
        for name in self.cameras:
            if name not in CAMERAS:
                raise UserError(unknown_name("camera", name, CAMERAS))
        if self.assets.is_builtin and suite not in builtin.SUITES:
            raise AssetError(f"the built-in assets cover {', '.join(builtin.SUITES)}, not {suite}; name the folder of "
                             f"LIBERO's assets, or \"hub\" to download them, as `assets` or in $M2DISTILL_ASSETS")
        self._env = _make_env(self.task.bddl_file, self.assets)
        self._sim = self._env.sim
        self.model: mujoco.MjModel = self._sim.model._model
        self.data: mujoco.MjData = self._sim.data._data
        self._substeps = round(self._env.control_timestep / self._env.model_timestep)
        if self.assets.is_builtin:
            _draw_simple_robot(self.model)
        self._renderer = None
        if self.cameras:
            height, width = (max(size[axis] for size in self.cameras.values()) for axis in (0, 1))
            self._renderer = Renderer(self.model, height, width, plain=self.assets.is_builtin)

    @property
    def instruction(self) -> str:
        return self.task.instruction

    def reset(self, initial_state: np.ndarray | None = None, seed: int | None = None,
              settle_steps: int = SETTLE_STEPS) -> SimObservation:
        """Start an episode from a flattened state (D,) or, without one, from a placement drawn by `seed`."""
        legacy = np.random.get_state()  # LIBERO's samplers draw from numpy's global generator
        np.random.seed(seed)
        try:
            self._env.reset()
            jitter = np.random.normal(0.0, ARM_JITTER_RAD, 7)
        finally:
            np.random.set_state(legacy)
        state = self.state()
        if initial_state is None:
            state[1 + np.asarray(self._robot._ref_joint_pos_indexes)] += jitter
        else:
            initial_state = np.asarray(initial_state, dtype=np.float64)
            if initial_state.shape != state.shape or not np.isfinite(initial_state).all():
                raise UserError(f"initial state has shape {initial_state.shape}, expected {state.shape} finite "
                                f"numbers: [time, qpos, qvel] of {self.task.name}; see suites.initial_states")
            state = initial_state
        self._sim.set_state_from_flattened(state)
        mujoco.mj_forward(self.model, self.data)
        self._env._post_process()
        self._robot.controller.sim = _SteppedSim(self._sim)
        self._robot.controller.update(force=True)
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)  # robosuite keeps the last episode's
        for _ in range(settle_steps):
            self.step(np.zeros(7), render=False)
        return self.observe()

    def step(self, action: np.ndarray, render: bool = True) -> SimObservation:
        """One control step of 50 ms. `action` (7,) in [-1, 1], clipped: see ActionSpec for its meaning."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (7,):
            raise UserError(f"action has shape {action.shape}, expected (7,): translation, rotation, gripper")
        if not np.isfinite(action).all():
            raise UserError(f"action {action.tolist()} is not finite; the policy or the caller is broken")
        for substep in range(self._substeps):
            mujoco.mj_step1(self.model, self.data)
            self._robot.control(action, policy_step=substep == 0)
            mujoco.mj_step2(self.model, self.data)
        self._env._post_process()
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
            time_s=float(self.data.time))

    def render(self, camera: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright, of one of this environment's cameras."""
        if camera not in self.cameras:
            raise UserError(unknown_name("camera", camera, self.cameras))
        return self._renderer.render(self.data, CAMERAS[camera], *self.cameras[camera])

    def success(self) -> bool:
        """The task's goal predicate, now."""
        return bool(self._env._check_success())

    def state(self) -> np.ndarray:
        """(D,) float64: [time, qpos, qvel], as in LIBERO's initial states and datasets."""
        return self._sim.get_state().flatten()

    def model_xml(self) -> str:
        return self._env.model.get_xml()

    @property
    def objects_of_interest(self) -> tuple[str, ...]:
        """Names of the objects the goal is about, for experts: what to move, then where to."""
        return tuple(self._env.obj_of_interest)

    @property
    def object_names(self) -> tuple[str, ...]:
        return tuple(self._env.objects_dict)

    def object_body(self, name: str) -> int:
        return self._env.obj_body_id[name]

    def object_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Privileged: position (3,) and rotation matrix (3, 3) of an object's body, world frame."""
        body = self.object_body(name)
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

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


class _SteppedSim:
    """What the controller sees of the simulation. mj_step1 has just brought positions and velocities up to date, which
    is all that OSC reads, so the full forward pass that robosuite asks for at every substep has nothing left to do."""

    def __init__(self, sim):
        self.model, self.data = sim.model, sim.data

    def forward(self) -> None:
        pass


def _make_env(bddl_file, assets: AssetSource):
    with contextlib.redirect_stdout(None):  # LIBERO and robosuite print while they are imported and built
        libero = _import_libero()
        from libero.libero.envs.env_wrapper import ControlEnv

        libero._assets_path_cache = str(assets.path)
        try:
            env = ControlEnv(bddl_file_name=str(bddl_file), use_camera_obs=False, has_offscreen_renderer=False,
                             hard_reset=False, ignore_done=True)
        except (FileNotFoundError, ValueError) as error:  # the second is MuJoCo's, for a mesh or texture
            if isinstance(error, ValueError) and "opening file" not in str(error):
                raise
            raise AssetError(f"assets folder {assets.path} is incomplete: {error}; copy LIBERO's assets whole, or use "
                             f"\"builtin\"") from error
    return env.env


def _import_libero():
    """Import `libero.libero` with a config file of our own: without one it asks on stdin and writes into the home."""
    import yaml

    package = libero_package()
    config = {"benchmark_root": package, "bddl_files": package / "bddl_files", "init_states": package / "init_files",
              "datasets": cache_folder() / "datasets", "assets": cache_folder() / "assets"}
    content = yaml.safe_dump({key: str(path) for key, path in config.items()}).encode()
    folder = cache_folder() / f"libero-config-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.is_dir():
        write_folder(folder, {"config.yaml": content})
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it warns about a missing private macro file
    import libero.libero

    return libero.libero


def _draw_simple_robot(model: mujoco.MjModel) -> None:
    """Draw the arm by its collision shapes: 5 thousand faces instead of 130 thousand. Physics does not read these."""
    for geom in range(model.ngeom):
        name = model.geom(geom).name
        if not name.startswith(("robot0_", "gripper0_")) or model.geom_type[geom] != mujoco.mjtGeom.mjGEOM_MESH:
            continue
        if name.endswith("_collision"):
            model.geom_group[geom] = VISUAL_GROUP
            model.geom_matid[geom] = -1
            model.geom_rgba[geom, :3] = next(rgb for part, rgb in ROBOT_RGB.items() if part in name)
            model.geom_rgba[geom, 3] = 1
        else:
            model.geom_group[geom] = HIDDEN_GROUP
