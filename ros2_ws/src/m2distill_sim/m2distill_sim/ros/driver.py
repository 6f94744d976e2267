"""Scripted expert that drives the arm through the command topics, as an operator with a joystick does.

It reads the simulator's state, so it runs in the simulator's process. The robot side cannot distinguish it from a
person: it publishes the same topics, including `operator_active`, and its commands have the stamp of the observation
that they answer. It releases the arm when the task is done.
"""

from typing import cast

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from std_msgs.msg import Bool, Float64

from m2distill_policy.action import ActionSample, sample_to_command
from m2distill_policy.ros.common import conversions
from m2distill_policy.spec import libero_spec
from m2distill_sim.arm_env import ArmEnv
from m2distill_sim.collect import LINGER_STEPS
from m2distill_sim.experts import make_expert
from m2distill_sim.experts.noise import Disturbance
from m2distill_sim.libero_env import LiberoEnv


class ExpertDriver:
    """Driver of one episode at a time, with publishers on `node`."""

    def __init__(self, node: Node):
        self._spec = libero_spec()
        self._pubs = [
            node.create_publisher(kind, topic, 10)
            for kind, topic in ((Bool, "operator_active"), (Float64, "gripper_cmd"), (TwistStamped, "twist_cmd"))
        ]

    def begin(self, env: ArmEnv, seed: int, disturbed: bool) -> None:
        """Start an episode.

        Args:
            env: Environment of the episode.
            seed: Seed of the expert and of the disturbance.
            disturbed: Push the arm as m2distill collect does, so that the recording contains recoveries.

        Raises:
            UserError: No expert solves the task.
        """
        rng = np.random.default_rng(seed)
        self._env = cast(LiberoEnv, env)  # the next line rejects the tasks of others
        self._expert = make_expert(self._env, rng)
        self._disturbance = Disturbance(rng) if disturbed else None
        self._answered_ns, self._linger = -1, LINGER_STEPS

    def answer(self, stamp_ns: int) -> None:
        """Publish the expert's command for the observation of `stamp_ns`; a repeated observation gets the same one."""
        if self._linger == 0:
            self.release()
            return
        if stamp_ns != self._answered_ns:
            self._answered_ns = stamp_ns
            action = np.asarray(self._expert.act(self._env), dtype=np.float32)
            self._linger -= self._expert.done
            command = sample_to_command(self._spec, ActionSample(action, mode=0, log_prob=0.0, entropy=0.0), stamp_ns)
            self._messages = (
                Bool(data=True),
                Float64(data=command.gripper_width_m),
                conversions.twist_from_numpy(
                    command.linear_m_s, command.angular_rad_s, stamp_ns, self._spec.action.frame_id
                ),
            )
        for publisher, message in zip(self._pubs, self._messages, strict=True):
            publisher.publish(message)

    def release(self) -> None:
        """Publish that the operator is no longer active."""
        self._pubs[0].publish(Bool(data=False))

    def pushes(self, action: np.ndarray) -> np.ndarray:
        """Return the disturbance (7,) that is added to a commanded action."""
        return self._disturbance.step(self._expert.phase, action) if self._disturbance else np.zeros(7)
