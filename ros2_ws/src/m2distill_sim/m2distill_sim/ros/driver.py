"""The scripted expert in an operator's place: what it would do goes out on the command topics, like a joystick's.

It sees the simulator's own state, so it lives in the simulator's process; the robot side cannot tell it from a person:
the same topics, the same `operator_active`, commands that answer the stamp of the observation. When nothing is left to
do it lets go.
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
    def __init__(self, node: Node):
        self._spec = libero_spec()
        self._pubs = [
            node.create_publisher(kind, topic, 10)
            for kind, topic in ((Bool, "operator_active"), (Float64, "gripper_cmd"), (TwistStamped, "twist_cmd"))
        ]

    def begin(self, env: ArmEnv, seed: int, disturbed: bool) -> None:
        """An episode has begun. `disturbed`: the arm is pushed about as in m2distill collect, so that what is recorded
        shows recoveries. Raises UserError for a task that no expert solves."""
        rng = np.random.default_rng(seed)
        self._env = cast(LiberoEnv, env)  # of another one the next line refuses the task
        self._expert = make_expert(self._env, rng)
        self._disturbance = Disturbance(rng) if disturbed else None
        self._answered_ns, self._linger = -1, LINGER_STEPS

    def answer(self, stamp_ns: int) -> None:
        """The observation of `stamp_ns` has gone out: command what the expert does in the world's present state. The
        same observation again gets the same answer."""
        if self._linger == 0:
            self.let_go()
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

    def let_go(self) -> None:
        self._pubs[0].publish(Bool(data=False))

    def pushes(self, action: np.ndarray) -> np.ndarray:
        """(7,) what the world adds to a commanded action."""
        return self._disturbance.step(self._expert.phase, action) if self._disturbance else np.zeros(7)
