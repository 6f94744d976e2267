"""Another checkpoint for a running node: tried out in the background, swapped in between two control steps.

The old one is kept, so that `rollback` can go back to it at once. A bad one is refused with the reason and nothing
changes.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rclpy.task import Future

from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.policy_thread import PolicyThread
from m2distill_policy.control.session import PolicySession, require_same_robot
from m2distill_policy.errors import CheckpointError, UserError
from m2distill_policy.observations.observation import Observation
from m2distill_policy.ros.common.background import BackgroundExecutor, lower_priority
from m2distill_policy.ros.policy.parameters import PolicyParameters
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.spec import PolicySpec

TRIED_STEPS = 2  # per instruction: a history of one and of more than one
TRIAL_PATIENCE_S = 10.0  # for one step of a checkpoint that is tried out
LOCKSTEP_PATIENCE_S = 5.0  # for one step where the simulator waits; long enough for a busy machine


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint ready to act, on `thread`. The weights are in `policy` alone."""

    path: str
    checkpoint_id: str
    spec: PolicySpec
    instructions: Mapping[str, np.ndarray]
    policy: InferencePolicy
    thread: PolicyThread


def load(path: str, settings: PolicyParameters, limits: SafetyLimits) -> LoadedCheckpoint:
    """Raises UserError."""
    checkpoint: Checkpoint = load_checkpoint(Path(path))
    policy = InferencePolicy(checkpoint, settings.sampling, settings.seed, settings.precision)
    patience_s = LOCKSTEP_PATIENCE_S if settings.pacing == "lockstep" else limits.command_timeout_s
    return LoadedCheckpoint(
        path,
        checkpoint.id,
        checkpoint.spec,
        checkpoint.instructions,
        policy,
        PolicyThread(policy, patience_s, _take_torchs_threads),
    )


def try_out(loaded: LoadedCheckpoint, observations: list[Observation]) -> None:
    """Let it act under each of its instructions on observations of this robot, or on a blank one where there are none
    yet. Raises CheckpointError when an action is not finite, PolicyTimeoutError when none comes. Its history and its
    draws are as new afterwards."""
    observations = observations[-TRIED_STEPS:] or [_blank(loaded.spec)]
    trial = PolicyThread(loaded.policy, TRIAL_PATIENCE_S, _stand_back)
    for text, embedding in loaded.instructions.items():
        trial.set_text(embedding)
        for observation in observations:
            action = trial.step(observation).action
            if not np.isfinite(action).all():
                raise CheckpointError(
                    f"{loaded.path} acts on {text!r} with numbers that are not finite: {action.tolist()}"
                )
    loaded.policy.reset()
    loaded.policy.reseed()


def _take_torchs_threads() -> None:
    """A new thread has OpenMP's number of threads until torch, asked for its own, sets that."""
    torch.get_num_threads()


def _stand_back() -> None:
    lower_priority()
    _take_torchs_threads()


def _blank(spec: PolicySpec) -> Observation:
    images = {c.name: np.full((c.height, c.width, 3), 127, np.uint8) for c in spec.cameras}
    return Observation(
        images,
        np.zeros(len(spec.joint_names), np.float32),
        np.zeros(len(spec.gripper_joint_names), np.float32),
        stamp_ns=0,
    )


class CheckpointReloader:
    """`swapped(news)` and `refused(news)` are told on the node's thread."""

    def __init__(
        self,
        session: PolicySession,
        active: LoadedCheckpoint,
        settings: PolicyParameters,
        background: BackgroundExecutor,
        swapped: Callable[[str], None],
        refused: Callable[[str], None],
    ):
        self._session, self._settings, self._background = session, settings, background
        self._swapped, self._refused = swapped, refused
        self.active = active
        self.previous: LoadedCheckpoint | None = None
        self._under_way: dict[str, Future] = {}  # path -> answer

    def request(self, path: str) -> Future:
        """Load what lies there now. The future's result: (whether it was swapped in, one line of news)."""
        if path not in self._under_way:
            self._under_way[path] = Future()
            recent = list(self._session.recent)
            self._background.run(
                lambda: self._load(path, recent), lambda loaded, error: self._finish(path, loaded, error)
            )
        return self._under_way[path]

    def loading(self, path: str) -> bool:
        return path in self._under_way

    def rollback(self) -> str:
        """Go back to the one before; doing it twice comes back. Raises UserError."""
        if self.previous is None:
            raise UserError("there is no earlier checkpoint to go back to")
        return self._swap(self.previous, "rolled back")

    def _load(self, path: str, recent: list[Observation]) -> LoadedCheckpoint:
        loaded = load(path, self._settings, self._session.limits)
        require_same_robot(self._session.spec, loaded.spec)
        try_out(loaded, recent)
        return loaded

    def _finish(self, path: str, loaded: LoadedCheckpoint | None, error: Exception | None) -> None:
        answer = self._under_way.pop(path)
        try:
            if error is not None:
                raise error
            assert loaded is not None
            news = self._swap(loaded, "reloaded")
        except UserError as error:
            self._refuse(answer, path, str(error))
        except Exception as error:  # the disk went, or a defect of ours: neither may touch the policy that acts
            traceback.print_exception(error)
            self._refuse(answer, path, f"{type(error).__name__}: {error}")
        else:
            answer.set_result((True, news))

    def _refuse(self, answer: Future, path: str, reason: str) -> None:
        news = f"reload of {path} refused: {reason}; {self.active.checkpoint_id[:12]} goes on"
        self._refused(news)
        answer.set_result((False, news))

    def _swap(self, loaded: LoadedCheckpoint, verb: str) -> str:
        if loaded.checkpoint_id == self.active.checkpoint_id:
            news = f"{loaded.checkpoint_id[:12]} acts already"
            self._swapped(news)
            return news
        self._session.adopt(loaded.spec, loaded.thread, loaded.instructions)
        old, self.active, self.previous = self.active, loaded, self.active
        news = f"{verb}: {loaded.checkpoint_id[:12]} in the place of {old.checkpoint_id[:12]}"
        self._swapped(news)
        return news
