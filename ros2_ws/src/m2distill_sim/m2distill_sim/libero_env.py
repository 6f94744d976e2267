"""LiberoEnv: one LIBERO task as plain arrays (arm_env.py). No other module imports LIBERO."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np

from m2distill_policy.cameras import Camera
from m2distill_policy.errors import AssetError
from m2distill_sim import builtin
from m2distill_sim.arm_env import ArmEnv, SimObservation, check_cameras, quiet_robosuite
from m2distill_sim.assets import AssetSource, cache_folder, find_assets, libero_package, write_folder
from m2distill_sim.suites import Task, find_task
from m2distill_sim.task_files import check_task_files

__all__ = ["LiberoEnv", "SimObservation"]

NO_IMAGES = {"use_camera_obs": False, "has_offscreen_renderer": False, "hard_reset": False, "ignore_done": True}


class LiberoEnv(ArmEnv):
    """Environment of one task of LIBERO."""

    def __init__(
        self,
        suite: str,
        task: int | str,
        assets: AssetSource | None = None,
        cameras: dict[str, tuple[int, int]] | None = None,
        views: Sequence[Camera] = (),
        twin: ArmEnv | None = None,
    ):
        """Load a task.

        Args:
            suite: suite of LIBERO.
            task: index or name.
            assets: None: see find_assets.
            cameras: maps names of cameras to (height, width) of their images; none needs no renderer.
            views: cameras beyond the table of m2distill_policy.cameras, as read_cameras returns them.
            twin: an open environment of the same arguments, whose renderer serves both; see ArmEnv.

        Raises:
            UserError: a name is unknown.
            AssetError: the assets do not cover the task, or are incomplete.
            RendererError: no image can be drawn.
        """
        found, cameras = find_task(suite, task), cameras or {}
        check_cameras(cameras, views)
        assets = find_assets() if assets is None else assets
        if assets.is_builtin and suite not in builtin.SUITES:
            raise AssetError(
                f"the built-in assets cover {', '.join(builtin.SUITES)}, not {suite}; name the folder of "
                f'LIBERO\'s assets, or "hub" to download them, as `assets` or in $M2DISTILL_ASSETS'
            )
        check_task_files(found.bddl_file, assets)
        # The first call imports LIBERO, and that leaves this frame in a reference cycle. No local may hold the result.
        super().__init__(
            found,
            assets,
            _make_env(found, assets, "ControlEnv", **NO_IMAGES).env,
            cameras,
            assets.is_builtin,
            views,
            twin,
        )

    @property
    def objects_of_interest(self) -> tuple[str, ...]:
        """Names of the objects in the goal: the object to move, then its target."""
        return tuple(self._env.obj_of_interest)

    @property
    def goal(self) -> tuple[tuple[str, ...], ...]:
        """Predicates that must all hold: ("on", "plate_1", "main_table_stove_front_region") ..."""
        return tuple(tuple(predicate) for predicate in self._env.parsed_problem["goal_state"])

    @property
    def object_names(self) -> tuple[str, ...]:
        return tuple(self._env.objects_dict)

    def object_body(self, name: str) -> int:
        """Return the body id of an object."""
        return self._env.obj_body_id[name]

    def object_pose(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return position (3,) and rotation matrix (3, 3) of an object's body, world frame. Privileged."""
        body = self.object_body(name)
        return self.data.xpos[body].copy(), self.data.xmat[body].reshape(3, 3).copy()

    def _before_reset(self) -> None:
        # LIBERO adds a fixture's new position to that of its sites in the model, where it takes the fixture for unmoved
        for fixture in self._env.fixtures_dict.values():
            loaded = self._env.model.worldbody.find(f".//body[@name='{fixture.root_body}']")
            body = self.model.body(fixture.root_body)
            body.pos = _numbers(loaded.get("pos", "0 0 0"))
            body.quat = _numbers(loaded.get("quat", "1 0 0 0"))

    def _after_step(self) -> None:
        self._env._post_process()  # LIBERO's states of stove and drawers


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), float)


def wrapped_env(task: Task, assets: AssetSource, size_px: int):
    """Return LIBERO's own OffScreenRenderEnv with its two cameras, for comparison. Raises UserError."""
    return _make_env(task, assets, "OffScreenRenderEnv", camera_heights=size_px, camera_widths=size_px)


def _make_env(task: Task, assets: AssetSource, kind: str, **options):
    """Create an environment of LIBERO's module env_wrapper, of class `kind`."""
    with quiet_robosuite():
        libero = _import_libero()
        from libero.libero.envs import env_wrapper

        libero._assets_path_cache = str(assets.path)
        try:
            return getattr(env_wrapper, kind)(bddl_file_name=str(task.bddl_file), **options)
        except (FileNotFoundError, ValueError) as error:  # the second is MuJoCo's, for a mesh or texture
            if isinstance(error, ValueError) and "opening file" not in str(error):
                raise
            raise AssetError(
                f'assets folder {assets.path} is incomplete: {error}; copy LIBERO\'s assets whole, or use "builtin"'
            ) from error


def _import_libero():
    """Import `libero.libero` with a config file of ours; without one it reads stdin and writes to the home folder."""
    import yaml

    package = libero_package()
    config = {
        "benchmark_root": package,
        "bddl_files": package / "bddl_files",
        "init_states": package / "init_files",
        "datasets": cache_folder() / "datasets",
        "assets": cache_folder() / "assets",
    }
    content = yaml.safe_dump({key: str(path) for key, path in config.items()}).encode()
    folder = cache_folder() / f"libero-config-{hashlib.sha256(content).hexdigest()[:12]}"
    if not folder.is_dir():
        write_folder(folder, {"config.yaml": content})
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    import libero.libero

    return libero.libero
