"""A policy on a thread of its own, so that its owner can go on when a step hangs. No torch, no ROS."""

import queue
import threading
import weakref
from collections.abc import Callable

import numpy as np

from m2distill_policy.action import ActionSample
from m2distill_policy.control.session import StepPolicy
from m2distill_policy.errors import PolicyTimeoutError
from m2distill_policy.observations.observation import Observation


class PolicyThread:
    """Implements session.StepPolicy by another one, which nobody else may touch from the first step on.

    A step that has not ended within `patience_s` raises PolicyTimeoutError, and so does every later one until it has
    ended; what comes of it is dropped. The thread is started by whoever asks for the first step, and so has his priority;
    `prepare()` is called once, on it. It ends when this object does, unless its policy hangs.
    """

    def __init__(self, policy: StepPolicy, patience_s: float, prepare: Callable[[], object] = lambda: None):
        self._patience_s = patience_s
        self._text_L: np.ndarray | None = None  # to be set before the next step
        self._forget = False  # to be done before the next step
        self._late = False
        self._steps: queue.SimpleQueue = queue.SimpleQueue()  # what to do in one step; None: the end
        self._outcomes: queue.SimpleQueue = queue.SimpleQueue()  # (sample, None) or (None, error)
        self._policy = policy
        self._thread: threading.Thread | None = threading.Thread(
            target=_work, args=(prepare, self._steps, self._outcomes), name="policy", daemon=True
        )
        weakref.finalize(self, self._steps.put, None)

    def reset(self) -> None:
        self._forget = True

    def set_text(self, embedding_L: np.ndarray) -> None:
        self._text_L = embedding_L

    def step(self, observation: Observation) -> ActionSample:
        if self._late and self._outcomes.empty():
            raise self._lateness()
        if self._late:
            self._outcomes.get()
            self._late = False
        if self._thread is not None:
            self._thread.start()
            self._thread = None
        self._steps.put(_step(self._policy, self._text_L, self._forget, observation))
        self._text_L, self._forget = None, False
        try:
            sample, error = self._outcomes.get(timeout=self._patience_s)
        except queue.Empty:
            self._late, self._forget = True, True
            raise self._lateness() from None
        if error is not None:
            raise error
        return sample

    def _lateness(self) -> PolicyTimeoutError:
        return PolicyTimeoutError(f"the policy has not answered within {self._patience_s:g} s")


def _step(
    policy: StepPolicy, text_L: np.ndarray | None, forget: bool, observation: Observation
) -> Callable[[], ActionSample]:
    def step() -> ActionSample:
        if text_L is not None:
            policy.set_text(text_L)
        if forget:
            policy.reset()
        return policy.step(observation)

    return step


def _work(prepare: Callable[[], object], steps: queue.SimpleQueue, outcomes: queue.SimpleQueue) -> None:
    prepare()
    while (step := steps.get()) is not None:
        try:
            outcomes.put((step(), None))
        except Exception as error:
            outcomes.put((None, error))
