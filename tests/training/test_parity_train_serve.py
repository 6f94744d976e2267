"""The same raw frames through the dataset and through the live session give identical tensors."""

import h5py
import numpy as np
import torch

from m2distill_policy.action import ActionSample, Command
from m2distill_policy.control.session import PolicySession
from m2distill_policy.models.batch import to_model_input
from m2distill_policy.spec import libero_spec
from m2distill_training.data.store import open_store
from m2distill_training.data.windows import DemoSubset, Windows

TEXT = np.array([0.25, -1.0, 3.0], np.float32)
SPEC = libero_spec(size_px=16, history=6, text_encoder="test", text_width=3)


class Recorder:
    """A policy that writes down what it is shown and stands still."""

    def __init__(self):
        self.seen, self.text = [], None

    def reset(self):
        self.seen.clear()

    def set_text(self, embedding_L):
        self.text = embedding_L

    def step(self, observation):
        self.seen.append(observation)
        return ActionSample(np.zeros(7, np.float32), 0, 0.0, 0.0)


def test_frame_for_frame(libero_file):
    """Frames of 32 px are stored as LIBERO does, bottom row first, and reach the session upright, as from a camera; the
    joints arrive shuffled and the second finger positive, as from a robot."""
    path = libero_file(demos=1, steps=SPEC.history + 1, size_px=32)
    batch = Windows([DemoSubset(open_store(path, SPEC, "before"), TEXT)], SPEC.history).gather(np.array([0]))
    trained = to_model_input(batch["images"], batch["joint"], batch["gripper"], batch["text"])

    recorder = Recorder()
    session = PolicySession(SPEC, recorder, {"pick up the milk": TEXT})
    session.set_instruction("Pick up the milk.")
    names = SPEC.joint_names + SPEC.gripper_joint_names
    shuffle = np.random.default_rng(0).permutation(len(names))
    with h5py.File(path) as file:
        obs = {key: value[()] for key, value in file["data/demo_0/obs"].items()}
    for t in range(SPEC.history):
        now_ns = (t + 1) * SPEC.period_ns
        session.observe_image("agentview", obs["agentview_rgb"][t][::-1], now_ns)
        session.observe_image("wrist", obs["eye_in_hand_rgb"][t][::-1], now_ns)
        fingers = obs["gripper_states"][t] * np.array([1, -1])
        positions = np.concatenate([obs["joint_states"][t], fingers])
        session.observe_joints([names[i] for i in shuffle], positions[shuffle], now_ns)
        assert isinstance(session.tick(now_ns), Command)

    served = to_model_input(
        {c.name: np.stack([o.images[c.name] for o in recorder.seen])[None] for c in SPEC.cameras},
        np.stack([o.joint for o in recorder.seen])[None],
        np.stack([o.gripper for o in recorder.seen])[None],
        recorder.text[None],
    )
    for camera in SPEC.cameras:
        assert served["images"][camera.name].shape == (1, 6, 3, 16, 16)
        assert torch.equal(trained["images"][camera.name], served["images"][camera.name])
    for name in ("joint", "gripper", "text"):
        assert torch.equal(trained[name], served[name])
