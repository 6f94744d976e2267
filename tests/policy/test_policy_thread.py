"""PolicyThread: the same results as the policy itself, and a caller that continues if a step hangs."""

import gc
import threading

import numpy as np
import pytest

from m2distill_policy.action import ActionSample, Hold
from m2distill_policy.control.policy_thread import PolicyThread
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import PolicyTimeoutError
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.spec import PANDA_FINGERS, PANDA_JOINTS, libero_spec

SPEC = libero_spec(size_px=8)
SOON_S = 0.5  # patience with a step that hangs; one that does not is far quicker
LIMIT_S = 30.0


class RecordingPolicy:
    """Policy that records its calls and their thread; a step waits while `hang` is set."""

    def __init__(self):
        self.told, self.threads, self.go_on = [], set(), threading.Event()
        self.go_on.set()
        self.ended = threading.Semaphore(0)  # counts steps that are over

    def reset(self):
        self.told.append("reset")

    def set_text(self, embedding):
        self.told.append(f"text {embedding[0]:g}")

    def step(self, observation):
        self.told.append("step")
        self.threads.add(threading.current_thread().name)
        assert self.go_on.wait(LIMIT_S)
        self.ended.release()
        if observation == "bad":
            raise RuntimeError("it is bad")
        return ActionSample(np.zeros(7, np.float32), len(self.told), 0.0, 0.0)


def test_calls_run_in_order_before_the_step_and_on_its_own_thread():
    diary = RecordingPolicy()
    policy = PolicyThread(diary, LIMIT_S)
    policy.set_text(np.ones(2))
    policy.reset()
    assert diary.told == []
    assert policy.step("a").mode == 3 and diary.told == ["text 1", "reset", "step"]
    assert policy.step("b").mode == 4 and diary.threads == {"policy"}


def test_an_error_of_the_policy_is_an_error_of_the_step():
    policy = PolicyThread(RecordingPolicy(), LIMIT_S)
    with pytest.raises(RuntimeError, match="it is bad"):
        policy.step("bad")
    assert policy.step("good").mode == 2


def test_while_a_step_hangs_every_other_is_late_at_once_and_its_answer_is_dropped():
    diary = RecordingPolicy()
    policy = PolicyThread(diary, SOON_S)
    diary.go_on.clear()
    for _ in range(3):
        with pytest.raises(PolicyTimeoutError, match="the policy has not answered within 0.5 s"):
            policy.step("a")
        policy.set_text(np.full(2, 2.0))
    assert diary.told == ["step"]  # it is not touched meanwhile
    diary.go_on.set()
    assert diary.ended.acquire(timeout=LIMIT_S)
    sample = answer(policy)
    assert diary.told == ["step", "text 2", "reset", "step"] and sample.mode == 4


def answer(policy):
    """Return the result of a policy whose late step has ended."""
    while True:
        try:
            return policy.step("b")
        except PolicyTimeoutError:
            pass


def test_a_session_holds_while_the_policy_hangs_and_acts_again_when_it_answers():
    diary = RecordingPolicy()
    session = PolicySession(
        SPEC, PolicyThread(diary, SOON_S), {"wave": np.ones(768, np.float32)}, limits_of("libero_sim")
    )
    session.set_instruction("wave")
    for camera in ("agentview", "wrist"):
        session.observe_image(camera, np.zeros((8, 8, 3), np.uint8), 0)
    session.observe_joints(PANDA_JOINTS + PANDA_FINGERS, [0.0] * 9, 0)
    diary.go_on.clear()
    assert session.tick(0) == Hold("the policy has not answered within 0.5 s") == session.tick(0)
    assert session.fault == ""
    diary.go_on.set()
    while isinstance(command := session.tick(0), Hold):
        assert command.reason == "the policy has not answered within 0.5 s"
    assert diary.told[-2:] == ["reset", "step"]


def test_the_thread_ends_with_its_owner():
    before = set(threading.enumerate())
    policy = PolicyThread(RecordingPolicy(), LIMIT_S)
    policy.step("a")
    (thread,) = set(threading.enumerate()) - before
    del policy
    gc.collect()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
