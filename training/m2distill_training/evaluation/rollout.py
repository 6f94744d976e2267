"""One closed-loop episode in simulation, through the session that drives the robot.

The session receives stamped images and joints and returns commands in SI units. They are converted back into actions as
in the simulator node, so a checkpoint has the same inputs and outputs as over ROS.
"""

from dataclasses import dataclass

import numpy as np

from m2distill_policy.action import Hold, command_to_action
from m2distill_policy.control.session import PolicySession
from m2distill_sim.arm_env import ArmEnv, SimObservation
from m2distill_training.evaluation.overlay import video_frame


@dataclass(frozen=True)
class RolloutOutcome:
    """Outcome of `run_episode`."""

    success: bool  # the goal predicate was true after any step, as in LIBERO
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
    """Run the session until success, `max_steps` or a Hold.

    In simulation every input is fresh, so a Hold is a fault and counts as a failure.

    Args:
        env: the simulator.
        session: the policy's session.
        instruction: what to execute.
        initial_state: state of the simulator at the start; None draws a placement.
        max_steps: control steps after which the episode has failed.
        record: keep an image of every step.
        placement_seed: seed of a drawn placement.

    Raises:
        UserError: the policy does not know the instruction.
    """
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
    """Pass one simulator observation to the session with the signs of a robot's topics: fingers open positively."""
    spec = session.spec
    for camera, image in observation.images.items():
        session.observe_image(camera, image, stamp_ns)
    fingers = observation.gripper_positions * np.array(spec.gripper_joint_signs)
    arm = [observation.joint_positions]
    if spec.observes_hand:
        arm = [observation.ee_pos, observation.ee_axis_angle]
    session.observe_joints(
        spec.joint_names + spec.gripper_joint_names,
        np.concatenate([*arm, fingers]).tolist(),
        stamp_ns,
    )
