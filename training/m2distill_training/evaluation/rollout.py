"""One closed-loop episode in simulation, through the session that drives the robot.

Images and joints go in with stamps, commands come out in SI units and are turned back into actions as the simulator
node does, so a checkpoint meets here what it meets over ROS.
"""

from dataclasses import dataclass

import numpy as np

from m2distill_policy.action import Hold, command_to_action
from m2distill_policy.control.session import PolicySession
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_training.evaluation.overlay import video_frame


@dataclass(frozen=True)
class RolloutOutcome:
    success: bool  # the goal predicate held after any step, as LIBERO counts
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    frames: list[np.ndarray]  # one image per step when recorded


def run_episode(
    env: ArmEnv,
    session: PolicySession,
    instruction: str,
    initial_state: np.ndarray | None,
    max_steps: int,
    record: bool = False,
    placement_seed: int | None = None,
) -> RolloutOutcome:
    """Let the session act from `initial_state`, or from a placement drawn by a seed, until success, `max_steps` or a
    Hold. In simulation every input is fresh, so a Hold is a fault and counts as a failure. Raises UserError for an
    instruction it does not know."""
    period_ns = session.spec.period_ns
    session.reset()
    session.reset_fault()
    session.set_instruction(instruction)
    observation = env.reset(initial_state, seed=placement_seed)
    frames: list[np.ndarray] = []
    for step in range(max_steps):
        now_ns = (step + 1) * period_ns
        feed(session, observation, now_ns)
        answer = session.tick(now_ns)
        if isinstance(answer, Hold):
            if record:
                frames.append(video_frame(observation.images, instruction, None))
            return RolloutOutcome(False, step, answer.reason, frames)
        if record:
            frames.append(video_frame(observation.images, instruction, answer.sample))
        observation = env.step(
            command_to_action(
                session.spec.action,
                session.spec.rate_hz,
                answer.linear_m_s,
                answer.angular_rad_s,
                answer.gripper_width_m,
            )
        )
        if env.success():
            if record:
                frames.append(video_frame(observation.images, instruction, answer.sample))
            return RolloutOutcome(True, step + 1, "", frames)
    return RolloutOutcome(False, max_steps, "", frames)


def feed(session: PolicySession, observation: SimObservation, stamp_ns: int) -> None:
    """Show one simulator observation to the session as a robot's topics would: fingers counted positive."""
    spec = session.spec
    for camera, image in observation.images.items():
        session.observe_image(camera, image, stamp_ns)
    fingers = observation.gripper_positions * np.array(spec.gripper_joint_signs)
    session.observe_joints(
        spec.joint_names + spec.gripper_joint_names,
        np.concatenate([observation.joint_positions, fingers]).tolist(),
        stamp_ns,
    )
