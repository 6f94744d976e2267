"""Replacement of the checkpoint of a running node.

The new one is loaded and validated in the background and swapped in between two control steps. The previous one is kept
for `rollback`. An invalid one is rejected with the reason and changes nothing. A recorded motion, which is a file, can
stand in place of a checkpoint's folder: `m2distill replay` lets the node follow it under all limits and orders.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rclpy.task import Future

from m2distill_policy.bringup.parameters import PolicyParameters
from m2distill_policy.checkpoint import Checkpoint, load_checkpoint
from m2distill_policy.control.inference import InferencePolicy
from m2distill_policy.control.policy_thread import PolicyThread
from m2distill_policy.control.replay_policy import ReplayPolicy
from m2distill_policy.control.session import PolicySession, StepPolicy, require_same_robot
from m2distill_policy.errors import CheckpointError, UserError
from m2distill_policy.observations.observation import Observation
from m2distill_policy.recording.motion import load_motion
from m2distill_policy.ros.common.background import BackgroundExecutor, lower_priority
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.spec import PolicySpec

VALIDATION_STEPS = 2  # per instruction: a history of one step and of more
VALIDATION_TIMEOUT_S = 10.0  # for one step of a checkpoint that is validated
LOCKSTEP_TIMEOUT_S = 5.0  # for one step in lockstep, long enough for a busy machine


class SeededPolicy(StepPolicy, Protocol):
    """Policy that `reseed` returns to its beginning: the random generator of a network, the first step of a motion."""

    def reseed(self) -> None: ...


@dataclass(frozen=True)
class LoadedCheckpoint:
    """Checkpoint or recorded motion that is ready to act on `thread`; `policy` holds the weights."""

    path: str
    checkpoint_id: str
    spec: PolicySpec
    instructions: Mapping[str, np.ndarray]
    policy: SeededPolicy
    thread: PolicyThread


def load(path: str, settings: PolicyParameters, limits: SafetyLimits) -> LoadedCheckpoint:
    """Load a checkpoint or a recorded motion for a node with these settings and limits. Raises UserError."""
    timeout_s = LOCKSTEP_TIMEOUT_S if settings.pacing == "lockstep" else limits.command_timeout_s
    if Path(path).is_file():
        motion = load_motion(Path(path))
        replay = ReplayPolicy(motion)
        known = {motion.text: np.zeros(1, np.float32)}
        return LoadedCheckpoint(path, motion.id, motion.spec, known, replay, PolicyThread(replay, timeout_s))
    checkpoint: Checkpoint = load_checkpoint(Path(path))
    policy = InferencePolicy(
        checkpoint, settings.sampling, settings.seed, settings.precision, settings.inference_backend, settings.device
    )
    return LoadedCheckpoint(
        path,
        checkpoint.id,
        checkpoint.spec,
        checkpoint.instructions,
        policy,
        PolicyThread(policy, timeout_s, _apply_torch_threads),
    )


def validate(loaded: LoadedCheckpoint, observations: list[Observation]) -> None:
    """Run the checkpoint with each of its instructions on observations of this robot, or on a blank one.

    Its history and its random generator are reset afterwards.

    Raises:
        CheckpointError: An action is not finite.
        PolicyTimeoutError: A step took longer than VALIDATION_TIMEOUT_S.
    """
    observations = observations[-VALIDATION_STEPS:] or [_blank(loaded.spec)]
    trial = PolicyThread(loaded.policy, VALIDATION_TIMEOUT_S, _prepare_validation)
    for text, embedding in loaded.instructions.items():
        trial.set_text(embedding)
        for observation in observations:
            action = trial.step(observation).action
            if not np.isfinite(action).all():
                raise CheckpointError(
                    f"{loaded.path} produces an action that is not finite for {text!r}: {action.tolist()}"
                )
    loaded.policy.reset()
    loaded.policy.reseed()


def _apply_torch_threads() -> None:
    """Make torch set its own number of threads on a new thread, which starts with OpenMP's."""
    torch.get_num_threads()


def _prepare_validation() -> None:
    lower_priority()
    _apply_torch_threads()


def _blank(spec: PolicySpec) -> Observation:
    images = {c.name: np.full((c.height, c.width, 3), 127, np.uint8) for c in spec.cameras}
    return Observation(
        images,
        np.zeros(len(spec.joint_names), np.float32),
        np.zeros(len(spec.gripper_joint_names), np.float32),
        stamp_ns=0,
    )


class CheckpointReloader:
    """Loads checkpoints in the background and swaps them into the session.

    Args:
        session: Session that gets the checkpoints.
        active: Checkpoint that acts now.
        settings: Parameters of the node.
        background: Executor for loading and validating.
        on_swap: Function that is called on the node's thread with a line about each swap.
        on_rejection: Function that is called on the node's thread with a line about each rejection.
    """

    def __init__(
        self,
        session: PolicySession,
        active: LoadedCheckpoint,
        settings: PolicyParameters,
        background: BackgroundExecutor,
        on_swap: Callable[[str], None],
        on_rejection: Callable[[str], None],
    ):
        self._session, self._settings, self._background = session, settings, background
        self._on_swap, self._on_rejection = on_swap, on_rejection
        self.active = active
        self.previous: LoadedCheckpoint | None = None
        self._pending: dict[str, Future] = {}  # path -> response

    def request(self, path: str) -> Future:
        """Load the checkpoint at `path`. The future's result is (swapped in or not, one line about it)."""
        if path not in self._pending:
            self._pending[path] = Future()
            recent = list(self._session.recent)
            self._background.run(
                lambda: self._load(path, recent), lambda loaded, error: self._finish(path, loaded, error)
            )
        return self._pending[path]

    def loading(self, path: str) -> bool:
        """Return whether the checkpoint at `path` is being loaded."""
        return path in self._pending

    def rollback(self) -> str:
        """Swap the previous checkpoint in; the next call swaps back. Raises UserError if there is none."""
        if self.previous is None:
            raise UserError("there is no previous checkpoint to roll back to")
        return self._swap(self.previous, "rolled back")

    def _load(self, path: str, recent: list[Observation]) -> LoadedCheckpoint:
        loaded = load(path, self._settings, self._session.limits)
        require_same_robot(self._session.spec, loaded.spec)
        validate(loaded, recent)
        return loaded

    def _finish(self, path: str, loaded: LoadedCheckpoint | None, error: Exception | None) -> None:
        answer = self._pending.pop(path)
        try:
            if error is not None:
                raise error
            assert loaded is not None
            line = self._swap(loaded, "reloaded")
        except UserError as error:
            self._reject(answer, path, str(error))
        except Exception as error:  # the disk or a defect of ours; the active policy must not be affected
            traceback.print_exception(error)
            self._reject(answer, path, f"{type(error).__name__}: {error}")
        else:
            answer.set_result((True, line))

    def _reject(self, answer: Future, path: str, reason: str) -> None:
        line = f"reload of {path} rejected: {reason}; {self.active.checkpoint_id[:12]} stays active"
        self._on_rejection(line)
        answer.set_result((False, line))

    def _swap(self, loaded: LoadedCheckpoint, verb: str) -> str:
        if loaded.checkpoint_id == self.active.checkpoint_id:
            line = f"{loaded.checkpoint_id[:12]} is already active"
            self._on_swap(line)
            return line
        self._session.adopt(loaded.spec, loaded.thread, loaded.instructions)
        old, self.active, self.previous = self.active, loaded, self.active
        line = f"{verb}: {loaded.checkpoint_id[:12]} replaces {old.checkpoint_id[:12]}"
        self._on_swap(line)
        return line
