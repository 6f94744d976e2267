"""Episodes of the recorder: start, keep, discard and label them, and write their messages."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rclpy.node import Node
from rosbags.typesys.store import Typestore

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.bringup.parameters import RecorderParameters
from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_text import shortened
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode import FAILURE, SUCCESS, UNKNOWN, RecordedEpisode, Recordings
from m2distill_policy.recording.episode_check import EpisodeCheck
from m2distill_policy.recording.topic_statistics import TopicStatistics
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.recorder.raw_subscription import header_stamp_ns
from m2distill_policy.safety.arm_presets import output_from_settings, settings_from_json
from m2distill_policy.spec import PolicySpec

MIB = 2**20
FOLLOWED, LABELLED = "which the policy follows", "as the operator labelled it"  # sources of an instruction


class EpisodeController:
    """The open episode, if any, and the labels of the next one. Methods that a service calls return what they did.

    Args:
        node: Node whose log and namespace are used.
        recordings: Folder of the episodes.
        topics: Topics of an episode.
        types: Definitions of their messages.
        labels: Labels with which every episode starts.
        read_settings: Function that returns the present parameters.
        background: Executor that writes the file to the disk.
    """

    def __init__(
        self,
        node: Node,
        recordings: Recordings,
        topics: Sequence[episode_topics.Topic],
        types: Typestore,
        labels: dict[str, str],
        read_settings: Callable[[], RecorderParameters],
        background: BackgroundExecutor,
    ):
        self._log = node.get_logger()
        self._recordings, self._topics, self._types, self._node = recordings, topics, types, node
        self._labels, self._read_settings, self._background = labels, read_settings, background
        self._instruction = ""  # of the next episode
        self._source = ""  # where the instruction of the open episode, or of the next one, comes from
        self._acknowledged = ""  # instruction that the policy follows now
        streams = [topic.name for topic in topics if topic.continuous]
        spec = PolicySpec.from_json(labels["spec"])
        self.motion, *gripper = _command_topics(labels["arm_settings"])
        self.check = EpisodeCheck(spec, streams, (self.motion, *gripper))
        namespace = node.get_namespace().rstrip("/")
        self._names = {topic.name: f"{namespace}/{topic.name}" for topic in topics}
        self._cameras: dict[str, dict] = {}  # calibration from camera_info, by camera
        self._statistics: dict[str, TopicStatistics] = {}  # of the open episode, by watched topic
        self._syncing = False
        self.episode: RecordedEpisode | None = None
        self.failure = ""  # why the last episode was lost; empty after the next start

    # --- services

    def start(self) -> str:
        """Start an episode."""
        if self.episode:
            raise UserError(f"{self.episode.name} is being recorded; keep or discard it first")
        settings = self._read_settings()
        free_mib = self.free_mib()
        if free_mib < settings.min_free_mib:
            raise UserError(
                f"{settings.directory} has {free_mib} MiB left, required are {settings.min_free_mib} "
                "(min_free_mib); free some space"
            )
        max_gap_ns = round(settings.max_gap_s * 1e9)
        self._statistics = {topic.name: TopicStatistics(max_gap_ns) for topic in self._topics if topic.continuous}
        self.episode = self._recordings.begin(
            {self._names[topic.name]: topic.type for topic in self._topics},
            self._types,
            {
                **self._labels,
                "instruction": self._instruction,
                "operator": settings.operator,
                "camera_info": json.dumps(self._cameras),
            },
        )
        self.check.restart()
        self.failure = ""
        return f"recording {self.episode.name}{self._named()}"

    def _named(self) -> str:
        """Return the instruction of the open episode, for an answer."""
        text = self._open().labels["instruction"]
        return f"; instruction {text!r}, {self._source}" if text else "; no instruction yet"

    def keep(self, problems: list[str]) -> str:
        """End the open episode and keep it, as a success unless it was labelled a failure.

        Args:
            problems: Problems of the recording that the answer lists besides the episode's own.
        """
        episode = self._open()
        instruction = episode.labels["instruction"]
        if not instruction:
            raise UserError(
                "no instruction was received, and an episode without one cannot be used for training; send "
                "`instruction TEXT` on ~/command and keep again; the recording continues. A text on the topic "
                "`instruction` that the policy rejects is no label"
            )
        if episode.labels["success"] != FAILURE and (reason := self.check.problem(instruction)):
            raise UserError(
                f"instruction {instruction!r}: an import would drop the episode, because {reason}; discard it, or "
                "label it a failure and keep again; the recording continues"
            )
        if episode.labels["success"] == UNKNOWN:
            episode.label(success=SUCCESS)
        named, problems = self._named(), [*problems, *self.gaps()]
        messages, path = episode.bag.messages, self._finish()
        return f"kept {path}: {messages} messages{named}" + (f"; {'; '.join(problems)}" if problems else "")

    def discard(self) -> str:
        """End the open episode and mark it as discarded."""
        named = self._named()
        return f"discarded; until you remove it, it is {self._close().discard()}{named}"

    def label(self, **labels: str) -> str:
        """Set labels of the open episode."""
        episode = self._open()
        episode.label(**labels)
        return f"{episode.name}: {', '.join(f'{name} {value!r}' for name, value in labels.items())}{self._named()}"

    def instruct(self, text: str) -> str:
        """Set the instruction of the open episode, and of later ones until another instruction arrives."""
        if not text:
            raise UserError("`instruction` requires a text")
        self._set_instruction(text, LABELLED)
        return f"{self._open().name}{self._named()}" if self.episode else f"next episodes: instruction {text!r}"

    def _set_instruction(self, text: str, source: str) -> None:
        """Label the open episode and the next ones."""
        self._instruction, self._source = text, source
        if self.episode and self.episode.labels["instruction"] != text:
            self.episode.label(instruction=text)

    # --- topics

    def write(self, topic: str, raw: bytes, info: dict[str, int]) -> None:
        """Write a message to the open episode. Its time is that of its publication, whatever the order of arrival."""
        if self.episode:
            time_ns = info["source_timestamp"]
            self.episode.bag.write(self._names[topic], time_ns, raw)
            if topic in self._statistics:
                self._statistics[topic].add(time_ns, info["publication_sequence_number"])
                self.check.stamped(topic, header_stamp_ns(raw))

    def on_instruction(self, text: str) -> None:
        """Handle a text on the topic: a label only if no policy reports what it follows."""
        self.check.sent(text)
        present = self.episode.labels["instruction"] if self.episode else ""
        if text.strip() and not present and not self._node.count_publishers(episode_topics.STATUS):
            self._set_instruction(text.strip(), "as sent; no policy has acknowledged it")

    def on_status(self, status: PolicyStatus) -> None:
        """Label episodes with the checkpoint and with the instruction that the policy follows."""
        self._labels["checkpoint_id"] = status.checkpoint_id
        if self.episode and self.episode.labels["checkpoint_id"] != status.checkpoint_id:
            self.episode.label(checkpoint_id=status.checkpoint_id)
        before = self._acknowledged
        known = (text for text in status.known_instructions if shortened(text) == status.instruction)
        self._acknowledged = next(known, "")
        if self._acknowledged and self._acknowledged != before:
            if not (self.episode and self.check.acted):  # otherwise the episode keeps its label, and has two
                self._set_instruction(self._acknowledged, FOLLOWED)
            self._instruction = self._acknowledged
        elif before and not self._acknowledged and self._instruction == before:
            self._instruction = ""  # what the policy no longer follows is no label of the next episode

    def on_action(self, action: PolicyAction) -> None:
        """Label the episode with its first action, unless the operator has labelled it: a status may be lost."""
        if self.episode and action.instruction and not self.check.acted and self._source != LABELLED:
            self._source = FOLLOWED
            if self.episode.labels["instruction"] != action.instruction:
                self.episode.label(instruction=action.instruction)
        self.check.followed(action.instruction)

    def on_calibration(self, camera: str, calibration: dict) -> None:
        """Keep the first calibration of each camera."""
        if camera in self._cameras:
            return
        self._cameras[camera] = calibration
        if self.episode:
            self.episode.label(camera_info=json.dumps(self._cameras))

    # --- the disk

    def free_mib(self) -> int:
        return self._recordings.free_bytes() // MIB

    def flush(self) -> None:
        if self.episode:
            with self.disk_errors():
                self.episode.bag.flush()

    def sync(self) -> None:
        """Write the open file to the disk, in the background."""
        self._background.poll()
        if self.episode and not self._syncing:
            self._syncing = True
            self._background.run(self.episode.bag.sync, self._synced)

    def _synced(self, _, error: Exception | None) -> None:
        self._syncing = False
        if error:
            self._log.error(self.abort(error))

    @contextmanager
    def disk_errors(self) -> Iterator[None]:
        """Abort the open episode if the disk is full or missing."""
        try:
            yield
        except OSError as error:
            self._log.error(self.abort(error))

    def abort(self, error: Exception) -> str:
        """End the open episode where it is; return what the operator must do, also for /diagnostics."""
        if self.episode:
            self._close().bag.abort()
        self.failure = (
            f"writing to the disk failed: {error}; if an episode was open, free some space, stop the recorder and run "
            f"`m2distill bag recover {self._recordings.root}`"
        )
        return self.failure

    def end_unjudged(self, reason: str) -> None:
        """End the open episode and keep it without a label of success."""
        with self.disk_errors():
            self._log.error(f"{reason}: kept {self._finish()} without a label of success")

    def gaps(self) -> list[str]:
        """Return gaps and losses of the open episode's topics."""
        if not self.episode:
            return []
        return [f"{name}: {topic.problems()}" for name, topic in self._statistics.items() if topic.problems()]

    def _open(self) -> RecordedEpisode:
        if self.episode is None:
            raise UserError(self.failure or "no episode is being recorded; start one")
        return self.episode

    def _close(self) -> RecordedEpisode:
        """Return the open episode and accept no more messages for it."""
        episode, self.episode = self._open(), None
        self._background.end()  # it may be writing the file to the disk
        self._syncing = False
        return episode

    def _finish(self) -> Path:
        episode = self._close()
        episode.labels["arrivals"] = json.dumps(
            {
                name: {
                    "count": topic.count,
                    "gaps": topic.gaps,
                    "lost": topic.lost,
                    "longest_gap_ms": round(topic.longest_ns / 1e6),
                }
                for name, topic in self._statistics.items()
            }
        )
        return episode.keep()


def _command_topics(arm_settings: str) -> list[str]:
    """Return the topic of the arm's commands, and that of the gripper's if there is one."""
    output = output_from_settings(settings_from_json(arm_settings))
    return [episode_topics.MOTIONS[output.output].name, *([episode_topics.GRIPPER] * (output.gripper_output != "none"))]
