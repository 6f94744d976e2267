"""A policy on a thread of its own, so that the control loop continues if a step hangs. No torch or ROS import here."""

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
    """Policy that implements `session.StepPolicy` by running another one on a thread.

    A step that takes longer than `timeout_s` raises PolicyTimeoutError, and so do later steps until it has ended; its
    result is dropped. The first step starts the thread, which therefore has the priority of the calling thread. The
    thread ends with this object, unless its policy hangs.

    Args:
        policy: The policy; nothing else may use it after the first step.
        timeout_s: Time limit of one step, in s.
        prepare: Function that is called once on the new thread.
    """

    def __init__(self, policy: StepPolicy, timeout_s: float, prepare: Callable[[], object] = lambda: None):
        self._timeout_s = timeout_s
        self._text_L: np.ndarray | None = None  # set before the next step
        self._reset = False  # whether to reset before the next step
        self._late = False
        self._steps: queue.SimpleQueue = queue.SimpleQueue()  # functions that do one step; None ends the thread
        self._outcomes: queue.SimpleQueue = queue.SimpleQueue()  # (sample, None) or (None, error)
        self._policy = policy
        self._thread: threading.Thread | None = threading.Thread(
            target=_work, args=(prepare, self._steps, self._outcomes), name="policy", daemon=True
        )
        weakref.finalize(self, self._steps.put, None)

    def reset(self) -> None:
        self._reset = True

    def set_text(self, embedding_L: np.ndarray) -> None:
        self._text_L = embedding_L

    def step(self, observation: Observation) -> ActionSample:
        if self._late and self._outcomes.empty():
            raise self._late_error()
        if self._late:
            self._outcomes.get()
            self._late = False
        if self._thread is not None:
            self._thread.start()
            self._thread = None
        self._steps.put(_step(self._policy, self._text_L, self._reset, observation))
        self._text_L, self._reset = None, False
        try:
            sample, error = self._outcomes.get(timeout=self._timeout_s)
        except queue.Empty:
            self._late, self._reset = True, True
            raise self._late_error() from None
        if error is not None:
            raise error
        return sample

    def _late_error(self) -> PolicyTimeoutError:
        return PolicyTimeoutError(f"the policy has not answered within {self._timeout_s:g} s")


def _step(
    policy: StepPolicy, text_L: np.ndarray | None, reset_first: bool, observation: Observation
) -> Callable[[], ActionSample]:
    def step() -> ActionSample:
        if text_L is not None:
            policy.set_text(text_L)
        if reset_first:
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
