"""Lifecycle node `recorder`: it writes one file per episode with all topics of a policy.

Services and a topic start and end episodes. Messages are written as they were received. Topics, services and files:
docs/recording.md; what is on the disk and what survives which failure: `recording/episode.py`. The inactive node
already receives instructions, so that the next episode is labelled with the last one.
"""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_policy.bringup.parameters import RecorderParameters
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.recording.episode import FAILURE, SUCCESS, UNKNOWN, Recordings
from m2distill_policy.recording.episode_topics import episode_topics, needs_pose
from m2distill_policy.robot import pose_frame, robot_from_settings
from m2distill_policy.ros.common import parameters
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.ros.policy.hand_frames import Frames
from m2distill_policy.ros.recorder.bag_types import bag_types
from m2distill_policy.ros.recorder.episode_controller import EpisodeController
from m2distill_policy.ros.recorder.status_reporter import StatusReporter
from m2distill_policy.ros.recorder.topic_recorder import TopicRecorder
from m2distill_policy.safety.arm_presets import load_arm, output_from_settings, resolve_arm, settings_to_json
from m2distill_policy.spec import read_spec

FLUSH_PERIOD_S = 0.25  # data that the end of this process may lose
SYNC_PERIOD_S = 1.0  # data that a power failure may lose
REPORT_PERIOD_S = 1.0


@dataclass
class Configured:
    """Parts of the node that exist from `configure` to `cleanup`."""

    episodes: EpisodeController
    topics: TopicRecorder
    status: StatusReporter


class RecorderNode(LifecycleNode):
    """Lifecycle and services of the recorder."""

    def __init__(self):
        super().__init__("recorder")
        parameters.declare(self, RecorderParameters)
        self.problem = ""  # why the last transition failed
        self._entities = ManagedEntities(self)
        self._parts: Configured | None = None
        self._active = self._finalized = False

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure(self._settings())
        except UserError as error:
            self._destroy()
            self.problem = str(error)
            self.get_logger().error(self.problem)
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def _settings(self) -> RecorderParameters:
        return parameters.read(self, RecorderParameters)

    def _configure(self, settings: RecorderParameters) -> None:
        entities = self._entities
        arm = load_arm(settings.arm)
        robot = robot_from_settings(arm)
        if settings.checkpoint:
            spec, checkpoint_id = read_spec(Path(settings.checkpoint))
            robot.check(spec, settings.arm)
        elif robot.described:
            spec, checkpoint_id = robot.spec(), ""
        else:
            raise UserError(
                "no checkpoint; set the parameter `checkpoint` to a checkpoint's directory, or `arm` to an arm file "
                "with cameras and joint_names, or with cameras and `state: hand`"
            )
        labels = {
            "success": UNKNOWN,
            "checkpoint_id": checkpoint_id,
            "spec": spec.to_json(),
            "arm": resolve_arm(settings.arm),
            "arm_settings": settings_to_json(arm),  # the file may change before the import
        }
        recordings = Recordings(Path(settings.directory))
        entities.at_destruction(recordings.close)
        for folder in recordings.unfinished():
            self.get_logger().warning(f"{folder} was not finished; run `m2distill bag recover {settings.directory}`")
        background = BackgroundExecutor()
        entities.at_destruction(background.end)
        compressed = settings.image_transport == "compressed"
        outputs, by_tf = output_from_settings(arm), self._is_posed_by_tf(arm)
        names = episode_topics(spec, compressed, robot.topics, outputs.output, by_tf)
        posed = needs_pose(spec, outputs.output)
        frame_id = pose_frame(spec, robot.frame_id or spec.action.frame_id, outputs.output == "pose")
        hand = Frames(outputs.base_frame or frame_id, outputs.ee_frame)
        episodes = EpisodeController(self, recordings, names, bag_types(), labels, self._settings, background)
        topics = TopicRecorder(entities, names, spec, settings.max_gap_s, episodes, hand if by_tf and posed else None)
        status = StatusReporter(entities, episodes, topics, self._settings)
        self._parts = Configured(episodes, topics, status)
        for name, action in self._actions(self._parts).items():
            entities.service(f"~/{name}", lambda _, response, action=action: self._serve(action, response))
        entities.subscription(String, "~/command", self._on_command, 10)
        entities.timer(FLUSH_PERIOD_S, episodes.flush)
        entities.timer(SYNC_PERIOD_S, episodes.sync)
        entities.timer(REPORT_PERIOD_S, status.report)

    def _is_posed_by_tf(self, arm: Mapping[str, Any]) -> bool:
        """Return whether the hand's pose is in TF, and TF can be recorded."""
        if not arm.get("ee_frame"):
            return False
        if importlib.util.find_spec("tf2_msgs") is None:
            self.get_logger().warning("TF is not recorded: tf2_msgs is not installed; install ros-$ROS_DISTRO-tf2-msgs")
            return False
        return True

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._parts  # the node is configured
        super().on_activate(state)
        self._active = True
        self._parts.topics.start()
        self._entities.start_timers()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._end_episode()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._end_episode()
        self._destroy()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._end_episode()
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """End the open episode and shut down, from any state of the lifecycle."""
        if not self._finalized:
            self.trigger_shutdown()

    def _end_episode(self) -> None:
        """Keep an open episode without a label of success, and stop recording."""
        if self._parts:
            episodes, topics = self._parts.episodes, self._parts.topics
            if episodes.episode:
                topics.drain()
            if episodes.episode:  # unless writing the remaining messages failed
                episodes.end_unjudged("the recorder was stopped")
            topics.stop()
        self._active = False
        self._entities.stop_timers()

    def _destroy(self) -> None:
        self._parts = None
        self._entities.destroy()

    # --- services and commands

    def _actions(self, parts: Configured) -> dict[str, Callable[[], str]]:
        episodes = parts.episodes

        def start() -> str:
            answer = episodes.start()
            parts.topics.begin()
            parts.status.restart()
            return answer

        def keep() -> str:
            parts.topics.drain()
            return episodes.keep([*parts.topics.slow_topics().values()])

        return {
            "start": start,
            "keep": keep,
            "discard": episodes.discard,
            "success": lambda: episodes.label(success=SUCCESS),
            "failure": lambda: episodes.label(success=FAILURE),
        }

    def _serve(self, action: Callable[[], str], response: Trigger.Response) -> Trigger.Response:
        assert self._parts  # the node is configured
        try:
            if not self._active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = action(), True
            self.get_logger().info(response.message)
        except (UserError, OSError) as error:
            response.success = False
            response.message = str(error) if isinstance(error, UserError) else self._parts.episodes.abort(error)
            self.get_logger().warning(response.message)
        return response

    def _on_command(self, message: String) -> None:
        """Run `start`, `keep`, `discard`, `success`, `failure` or `instruction TEXT`."""
        assert self._parts  # the node is configured
        episodes = self._parts.episodes
        word, _, rest = message.data.strip().partition(" ")
        actions = {**self._actions(self._parts), "instruction": lambda: episodes.instruct(rest.strip())}
        if word in actions:
            self._serve(actions[word], Trigger.Response())
        else:
            self.get_logger().warning(unknown_name("command", word, actions))


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(RecorderNode, lifecycle=True)


if __name__ == "__main__":
    sys.exit(main())
