"""Offscreen renderer of a MuJoCo model: one GL context for all cameras of one model, upright RGB images.

The context belongs to the thread that created it. It is freed by close() or before the interpreter exits.
"""

import atexit
import contextlib
import os
import weakref
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from m2distill_policy.errors import RendererError, UserError

PLATFORMS = ("egl", "osmesa")  # need no display; robosuite overrides any other
REMEDY = "install libegl1 and libgl1-mesa-dri for MUJOCO_GL=egl, or libosmesa6 for MUJOCO_GL=osmesa"


def _import_mujoco() -> tuple[Any, type[Exception]]:
    """Import mujoco, which chooses its GL platform at import; return it and the exception type of PyOpenGL."""
    platform = os.environ.setdefault("MUJOCO_GL", "egl")
    # Mesa's software renderer: for small images its threads cost more time than they save, and occupy cores that other
    # processes' simulators need.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if platform not in PLATFORMS:
        raise UserError(f"MUJOCO_GL is {platform!r}, allowed {' or '.join(PLATFORMS)}; unset it")
    opengl = os.environ.get("PYOPENGL_PLATFORM")
    if opengl and opengl.lower() != platform:  # mujoco and robosuite fail at import
        raise UserError(f"PYOPENGL_PLATFORM is {opengl!r}, expected the value of MUJOCO_GL, {platform!r}; unset it")
    try:
        import mujoco
        from OpenGL.error import Error
    except (ImportError, AttributeError) as error:  # the second is PyOpenGL's, for a missing library
        raise RendererError(f"no offscreen renderer with MUJOCO_GL={platform}: {error}; {REMEDY}") from error
    return mujoco, Error


mujoco, GLError = _import_mujoco()

VISUAL_GROUP = 1  # robosuite: collision geoms are in group 0, visual geoms in group 1
NOT_DRAWN = 5  # group that no option shows


def _check_device() -> None:
    """Raise UserError if $MUJOCO_EGL_DEVICE_ID is not a number; mujoco's message does not name the variable."""
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if os.environ["MUJOCO_GL"] == "egl" and device is not None and not device.isdecimal():
        raise UserError(f"MUJOCO_EGL_DEVICE_ID is {device!r}, expected the number of an EGL device, from 0; unset it")


def _gl_context(width: int, height: int) -> Any:
    """Create a GL context whose destructor does not print a traceback if the creation fails, as mujoco's does."""
    context = mujoco.GLContext.__new__(mujoco.GLContext)
    context._context = None
    context.__init__(width, height)
    return context


class Renderer:
    """Offscreen renderer of one model."""

    def __init__(self, model: Any, height: int, width: int, plain: bool = False, matte: bool = False):
        """Create the GL context.

        Args:
            model: MuJoCo model.
            height: largest image height in pixels.
            width: largest image width in pixels.
            plain: for scenes of few polygons. No reflections, shadows and sky; meshes are drawn as their convex hulls.
                Images are drawn at twice their size and averaged, which takes a software renderer a quarter of the
                time of multisampling.
            matte: no reflections. A table that reflects draws the whole scene a second time.

        Raises:
            RendererError: no context can be created.
            UserError: $MUJOCO_EGL_DEVICE_ID is not a number.
        """
        _check_device()
        self._plain, self._scale = plain, 2 if plain else 1
        height, width = height * self._scale, width * self._scale
        self._buffer = np.empty(3 * height * width, np.uint8)
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        model.vis.quality.offsamples = 0 if plain else 4
        try:
            self._gl = _gl_context(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except (RuntimeError, ImportError, mujoco.FatalError, GLError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RendererError(
                f"no offscreen renderer with MUJOCO_GL={os.environ['MUJOCO_GL']}: {reason}; {REMEDY}"
            ) from error
        self._scene = mujoco.MjvScene(model, maxgeom=2 * model.ngeom + 100)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = 0
        self._options.geomgroup[VISUAL_GROUP] = 1
        self._options.flags[mujoco.mjtVisFlag.mjVIS_CONVEXHULL] = plain
        if plain or matte:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        if plain:
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_SKYBOX, mujoco.mjtRndFlag.mjRND_HAZE):
                self._scene.flags[flag] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        _open.add(self)
        atexit.unregister(_close_all)  # exit handlers run in reverse order: this one must be registered after
        atexit.register(_close_all)  # mujoco's, which terminates the display of the contexts

    def render(self, model: Any, data: Any, camera: str, height: int, width: int) -> np.ndarray:
        """Return the image of a camera, (height, width, 3) uint8 RGB, upright.

        `model` is the renderer's, or another one of the same meshes and textures.
        """
        self._gl.make_current()
        self._camera.fixedcamid = model.camera(camera).id
        with self._without_invisible(model, data, width / height):
            mujoco.mjv_updateScene(
                model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
        area = mujoco.MjrRect(0, 0, width * self._scale, height * self._scale)
        image: np.ndarray = self._buffer[: 3 * area.height * area.width].reshape(area.height, area.width, 3)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(image, None, area, self._context)
        if self._scale > 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return image[::-1].copy()  # OpenGL's first row is the lowest

    @contextlib.contextmanager
    def _without_invisible(self, model: Any, data: Any, aspect: float) -> Iterator[None]:
        """Leave out what changes no pixel but takes a quarter of the time.

        LIBERO hides sites, one of them 10 m long, by a negative opacity, with which MuJoCo blends them. And in a plain
        scene nothing outside of the camera's view has a shadow or a reflection in it.
        """
        site_group, geom_group = model.site_group.copy(), model.geom_group.copy()
        model.site_group[model.site_rgba[:, 3] <= 0] = NOT_DRAWN
        if self._plain:
            model.geom_group[_outside(model, data, self._camera.fixedcamid, aspect)] = NOT_DRAWN
        try:
            yield
        finally:
            model.site_group[:], model.geom_group[:] = site_group, geom_group

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        if self in _open:
            _open.remove(self)
            self._gl.make_current()
            self._context.free()
            self._gl.free()

    def __del__(self):
        self.close()


def _outside(model: Any, data: Any, camera: int, aspect: float) -> np.ndarray:
    """Return for each geom whether its bounding sphere is outside of the view of a camera; (ngeom,) bool."""
    rotation, radius = data.cam_xmat[camera].reshape(3, 3), model.geom_rbound  # 0 for planes, which have no end
    x, y, z = ((data.geom_xpos - data.cam_xpos[camera]) @ rotation).T  # the camera looks along -z
    half = np.tan(np.radians(model.cam_fovy[camera]) / 2)
    outside = z > radius
    for across, slope in ((x, half * aspect), (y, half)):
        outside |= np.abs(across) + slope * z > radius * np.hypot(1, slope)
    return outside & (radius > 0)


_open: weakref.WeakSet[Renderer] = weakref.WeakSet()


def _close_all() -> None:
    for renderer in list(_open):
        renderer.close()
