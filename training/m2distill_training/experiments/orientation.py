"""Check of how a dataset's images are turned, against an image of the same task from the simulator."""

import numpy as np

from m2distill_policy.cameras import CAMERA_NAMES
from m2distill_policy.errors import AssetError, DataError, RendererError, UserError
from m2distill_policy.suites import LIBERO_SUITES
from m2distill_training.data.lerobot.layouts import TURNS, upright
from m2distill_training.data.libero.reader import Demo

CAMERA, SIDE_PX = CAMERA_NAMES[0], 32
MARGIN = 0.1  # of the correlation, by which another turn must be better than the named one


class OrientationCheck:
    """Check of the first demo of every task that is one of LIBERO's.

    `notes` hold why a task was not checked.
    """

    def __init__(self, assets: str | None = None):
        self._assets = assets
        self.notes: list[str] = []
        self.checked = 0

    def __call__(self, instruction: str, demo: Demo, stored: str) -> None:
        """Raise DataError if another turn of the images than `stored` resembles the simulator's image more."""
        try:
            rendered = self._render(instruction)
        except (RendererError, AssetError, UserError, ModuleNotFoundError) as error:
            self.notes.append(f"{instruction!r}: {error}")
            return
        found = correlations(demo.images[CAMERA][0], stored, rendered)
        best = max(found, key=lambda turn: found[turn])
        self.checked += 1
        if found[best] > found[stored] + MARGIN:
            raise DataError(
                f"the images of {instruction!r} are {best}, not {stored}: the correlation with the simulator's image "
                f"is {found[best]:.2f}, against {found[stored]:.2f}; name it with --images {best}"
            )

    def _render(self, instruction: str) -> np.ndarray:
        from m2distill_sim.env_factory import make_env
        from m2distill_sim.suites import assets_of, initial_states, suites
        from m2distill_training.evaluation.run_specs import known_tasks

        tasks = [task for suite in LIBERO_SUITES for task in known_tasks([instruction], suites()[suite])]
        if not tasks:
            raise UserError("no task of LIBERO has this instruction")
        task = tasks[0]  # tasks of one instruction differ in their scenes; the arm and the lights are the same
        cameras = {CAMERA: (SIDE_PX * 4, SIDE_PX * 4)}
        with make_env(task.suite, task.index, assets_of(task.suite, self._assets), cameras) as env:
            return env.reset(initial_states(task.suite, task.index)[0]).images[CAMERA]


def correlations(image: np.ndarray, stored: str, rendered: np.ndarray) -> dict[str, float]:
    """Return {turn: correlation of its upright image with `rendered`} for all turns.

    Args:
        image: (H, W, 3) uint8, made upright as if it was stored as `stored`.
        stored: one of TURNS.
        rendered: (H, W, 3) uint8, upright.
    """
    raw, reference = upright(image, stored), _small(rendered)  # every turn is its own inverse
    return {turn: float(np.corrcoef(_small(upright(raw, turn)), reference)[0, 1]) for turn in TURNS}


def _small(image: np.ndarray) -> np.ndarray:
    import cv2

    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    return cv2.resize(gray, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).ravel().astype(np.float64)
