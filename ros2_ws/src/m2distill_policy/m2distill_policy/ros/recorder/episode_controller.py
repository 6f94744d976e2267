"""Episodes of the recorder: start, keep, discard and label them, and write their messages."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rclpy.node import Node
from rosbags.typesys.store import Typestore

from m2distill_policy.bringup.parameters import RecorderParameters
from m2distill_policy.errors import UserError
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode import SUCCESS, UNKNOWN, RecordedEpisode, Recordings
from m2distill_policy.recording.topic_statistics import TopicStatistics
from m2distill_policy.ros.common.background import BackgroundExecutor

MIB = 2**20


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
        self._recordings, self._topics, self._types = recordings, topics, types
        self._labels, self._read_settings, self._background = labels, read_settings, background
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
            {**self._labels, "operator": settings.operator, "camera_info": json.dumps(self._cameras)},
        )
        self.failure = ""
        return f"recording {self.episode.name}"

    def keep(self, problems: list[str]) -> str:
        """End the open episode and keep it, as a success unless it was labelled a failure.

        Args:
            problems: Problems of the recording that the answer lists besides the episode's own.
        """
        episode = self._open()
        if not episode.labels["instruction"]:
            raise UserError(
                "no instruction was received, and an episode without one cannot be used for training; send "
                "`instruction TEXT` on ~/command and keep again; the recording continues"
            )
        if episode.labels["success"] == UNKNOWN:
            episode.label(success=SUCCESS)
        problems = [
            *problems,
            *self.gaps(),
            *(
                f"{name}: nothing received"
                for name in (episode_topics.TWIST, episode_topics.GRIPPER)
                if not episode.bag.counts[self._names[name]]
            ),
        ]
        messages, path = episode.bag.messages, self._finish()
        return f"kept {path}: {messages} messages" + (f"; {'; '.join(problems)}" if problems else "")

    def discard(self) -> str:
        """End the open episode and mark it as discarded."""
        return f"discarded; until you remove it, it is {self._close().discard()}"

    def label(self, **labels: str) -> str:
        """Set labels of the open episode."""
        episode = self._open()
        episode.label(**labels)
        return f"{episode.name}: {', '.join(f'{name} {value!r}' for name, value in labels.items())}"

    def instruct(self, text: str) -> str:
        """Set the instruction of the open episode, and of later ones until another instruction arrives."""
        if not text:
            raise UserError("`instruction` requires a text")
        self._labels["instruction"] = text
        return self.label(instruction=text) if self.episode else f"next episodes: {text!r}"

    # --- topics

    def write(self, topic: str, raw: bytes, info: dict[str, int]) -> None:
        """Write a message to the open episode. Its time is that of its publication, whatever the order of arrival."""
        if self.episode:
            time_ns = info["source_timestamp"]
            self.episode.bag.write(self._names[topic], time_ns, raw)
            if topic in self._statistics:
                self._statistics[topic].add(time_ns, info["publication_sequence_number"])

    def on_instruction(self, text: str) -> None:
        """Label the next episodes, and the open one if it has no instruction yet. An empty text means stop."""
        text = text.strip()
        if not text:
            return
        self._labels["instruction"] = text
        if self.episode and not self.episode.labels["instruction"]:
            self.episode.label(instruction=text)

    def on_checkpoint(self, checkpoint_id: str) -> None:
        self._labels["checkpoint_id"] = checkpoint_id
        if self.episode and self.episode.labels["checkpoint_id"] != checkpoint_id:
            self.episode.label(checkpoint_id=checkpoint_id)

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
