"""One closed-loop episode in simulation, through the session that drives the robot.

Pictures and joints go in with stamps, commands come out in SI units and are turned back into actions as the simulator
node does, so a checkpoint meets here what it meets over ROS.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_policy.action import Hold, command_to_action
from m2distill_policy.session import PolicySession
from m2distill_sim.libero_env import LiberoEnv, SimObservation

VIDEO_VIEW_PX = 256  # height of a view in the video


@dataclass(frozen=True)
class Episode:
    success: bool  # the goal predicate held after any step, as LIBERO counts
    steps: int
    held: str  # why the session stopped commanding; empty when it never did
    frames: list[np.ndarray]  # one picture per step when recorded


def run_episode(env: LiberoEnv, session: PolicySession, instruction: str, initial_state: np.ndarray, max_steps: int,
                record: bool = False) -> Episode:
    """Let the session act from `initial_state` until success, `max_steps` or a Hold. In simulation every input is
    fresh, so a Hold is a fault and counts as a failure. Raises UserError for an instruction it does not know."""
    period_ns = session.spec.period_ns
    session.reset()
    session.reset_fault()
    session.set_instruction(instruction)
    observation = env.reset(initial_state)
    frames: list[np.ndarray] = []
    for step in range(max_steps):
        now_ns = (step + 1) * period_ns
        feed(session, observation, now_ns)
        answer = session.tick(now_ns)
        if record:
            frames.append(video_frame(observation.images, instruction))
        if isinstance(answer, Hold):
            return Episode(False, step, answer.reason, frames)
        observation = env.step(command_to_action(session.spec.action, session.spec.rate_hz, answer.linear_m_s,
                                                 answer.angular_rad_s, answer.gripper_width_m))
        if env.success():
            if record:
                frames.append(video_frame(observation.images, instruction))
            return Episode(True, step + 1, "", frames)
    return Episode(False, max_steps, "", frames)


def feed(session: PolicySession, observation: SimObservation, stamp_ns: int) -> None:
    """Show one simulator observation to the session as a robot's topics would: fingers counted positive."""
    spec = session.spec
    for camera, image in observation.images.items():
        session.observe_image(camera, image, stamp_ns)
    fingers = observation.gripper_positions * np.array(spec.gripper_joint_signs)
    session.observe_joints(spec.joint_names + spec.gripper_joint_names,
                           np.concatenate([observation.joint_positions, fingers]), stamp_ns)


def video_frame(images: dict[str, np.ndarray], caption: str) -> np.ndarray:
    """All views side by side, enlarged, with the instruction below: (H, W, 3) uint8 with even sides, as video wants."""
    views = []
    for image in images.values():
        width = round(image.shape[1] * VIDEO_VIEW_PX / image.shape[0])
        views.append(cv2.resize(image, (width, VIDEO_VIEW_PX), interpolation=cv2.INTER_CUBIC))
    picture = np.concatenate(views, axis=1)
    bar = np.zeros((32, picture.shape[1], 3), np.uint8)
    (text_px, _), _ = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.5, (picture.shape[1] - 12) / text_px)
    cv2.putText(bar, caption, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([picture, bar])[:, :picture.shape[1] // 2 * 2]
