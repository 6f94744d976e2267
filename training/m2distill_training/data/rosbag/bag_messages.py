"""Messages of one recorded episode: a rosbag2 folder of any recorder, mcap or sqlite3. ROS is not required.

Topics are found by the names of docs/ros.md within any namespace of the robot. If a name is there more than once, the
namespace that has all topics of a robot decides. Every fault of a bag is a DataError that names it.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from m2distill_policy.errors import DataError
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode import METADATA
from m2distill_policy.recording.episode_topics import Topic
from m2distill_policy.recording.topic_statistics import TopicStatistics
from m2distill_policy.utils.schema import check_label

GAP_NS = 250_000_000  # a longer silence of a sensor is counted
SILENCE_NS = 60_000_000_000  # nobody holds still for so long: what comes after is another episode
JUMP_NS = 500_000_000  # stamps that go further than the time of recording does, by more than this, have jumped
REORDER_NS = 200_000_000  # messages of one topic that were recorded so much later than a newer one are sorted
STATES = (episode_topics.JOINTS, episode_topics.POSE)  # a robot publishes at least one of these
MOTIONS = tuple(topic.name for topic in episode_topics.MOTIONS.values())  # and receives one of these


class EpisodeBag:
    """Messages of one bag, created by `open_bag`; `labels` are the recorder's, empty for `ros2 bag record`.

    Args:
        path: Folder of the bag.
        reader: Open reader of the bag.
        namespace: Namespace of the robot, empty for none; None: the only one that has all topics of a robot.
    """

    def __init__(self, path: Path, reader: Reader, namespace: str | None = None):
        self.path, self._reader = path, reader
        self.labels: dict[str, str] = reader.storage.metadata.custom or {}
        _check_metadata(reader, self.labels)
        check_label(self.labels, path)
        self.arrivals: dict[str, TopicStatistics] = {}  # of the stamped topics that were read, by their stamps
        self._types = get_typestore(Stores.ROS2_JAZZY)
        if not reader.message_count:
            raise DataError("it holds no message")
        self._is_chosen = namespace is not None
        self._namespaces = self._complete_namespaces() if namespace is None else [namespace.strip("/")]

    @property
    def seconds(self) -> float:
        """Return the time from the first to the last message."""
        return self._reader.duration * 1e-9

    def _complete_namespaces(self) -> list[str]:
        """Return the namespaces with states and commands of a robot, and of the gripper if one has them."""
        present = {c.topic.strip("/") for c in self._reader.connections if c.msgcount}
        spaces = {topic.rpartition("/")[0] for topic in present}

        def has(space: str, *names: str) -> bool:
            return any(f"{space}/{name}".lstrip("/") in present for name in names)

        moved = sorted(space for space in spaces if has(space, *STATES) and has(space, *MOTIONS))
        return [space for space in moved if has(space, episode_topics.GRIPPER)] or moved

    def find(self, topic: Topic) -> Sequence[Connection]:
        """Return the topic with that suffix, empty without a message.

        Raises DataError for another type, or two robots in one bag.
        """
        filled = [c for c in self._reader.connections if c.msgcount]
        found = [c for c in filled if c.topic == topic.name or c.topic.endswith(f"/{topic.name}")]
        own = [c for c in filled if topic.source and c.topic.strip("/") == topic.source.strip("/")]
        if own and own[0].msgtype == topic.type:  # the robot's own name, in a bag that is not the recorder's
            return own
        wanted = [f"{space}/{topic.name}".lstrip("/") for space in self._namespaces]
        if self._is_chosen:  # a topic of another robot is none of this one; one without a namespace may be
            own = [c for c in found if c.topic.strip("/") in wanted]
            found = own or [c for c in found if c.topic.strip("/") == topic.name]
        names = sorted({c.topic for c in found})
        if len(names) > 1:
            chosen = [name for name in names if name.strip("/") in wanted]
            if len(chosen) != 1:
                raise DataError(
                    f"{' and '.join(chosen or names)}: more than one robot; name the namespace of one with --namespace"
                )
            found = [c for c in found if c.topic == chosen[0]]
        wrong = [c.msgtype for c in found if c.msgtype != topic.type]
        if wrong:
            raise DataError(f"{topic.name} is {wrong[0]}, expected {topic.type}")
        return found

    def need(self, topic: Topic) -> Sequence[Connection]:
        found = self.find(topic)
        if not found:
            recorded = sorted(c.topic for c in self._reader.connections if c.msgcount)
            raise DataError(f"it has no message on {topic.name}; it has: {', '.join(recorded)}")
        return found

    def messages(self, found: Sequence[Connection]) -> Iterator[tuple[int, Any]]:
        """Yield the time of recording, ns, and the message, in that order.

        Every call has a reader of its own, because in a file without an index two that read at once share one position.

        Raises:
            DataError: A message cannot be read, or fewer can than the bag counts.
        """
        if not found:
            return
        names, read = {c.topic for c in found}, 0
        try:
            for connection in found:
                if connection.msgtype not in self._types.fielddefs:  # no standard type: the bag itself explains it
                    self._types.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
            with Reader(self.path) as reader:
                same = [c for c in reader.connections if c.topic in names]
                for connection, time_ns, raw in reader.messages(same):
                    read += 1
                    yield time_ns, self._types.deserialize_cdr(raw, connection.msgtype)
        except Exception as error:  # as in open_bag
            raise DataError(f"{found[0].topic} is damaged ({error})") from None
        counted = sum(c.msgcount for c in found)
        if read != counted:
            raise DataError(f"{found[0].topic} is damaged: {read} of {counted} messages can be read")

    def stamped(self, topic: Topic) -> Iterator[tuple[int, Any]]:
        """Yield the header's stamp, ns, and the message, by stamp. Raises DataError if the stamps jump."""
        arrivals = self.arrivals[topic.name] = TopicStatistics(GAP_NS)
        waiting: list[tuple[int, int, Any]] = []  # heap of messages that an earlier one may still precede
        newest: tuple[int, int] | None = None  # stamp, and time of recording
        for number, (time_ns, message) in enumerate(self.messages(self.need(topic))):
            stamp_ns = stamp_of(message)
            if newest is not None:
                ahead_ns = (stamp_ns - newest[0]) - (time_ns - newest[1])
                if stamp_ns < newest[0] - REORDER_NS or ahead_ns > JUMP_NS:
                    raise DataError(
                        f"the clock of {topic.name} jumps from {newest[0] * 1e-9:.3f} s to "
                        f"{stamp_ns * 1e-9:.3f} s; a reset or another clock within one episode"
                    )
                if stamp_ns > newest[0] + SILENCE_NS:
                    silent_s = (stamp_ns - newest[0]) * 1e-9
                    raise DataError(f"{topic.name} is silent for {silent_s:.0f} s; record episodes apart")
            if newest is None or stamp_ns >= newest[0]:
                newest = stamp_ns, time_ns
            heapq.heappush(waiting, (stamp_ns, number, message))
            while waiting[0][0] < newest[0] - REORDER_NS:
                yield _arrived(arrivals, waiting)
        while waiting:
            yield _arrived(arrivals, waiting)

    def instructions(self) -> list[str]:
        """Return the instructions given while it was recorded, each once, in order.

        They are those under which the policy acted. Without any action they are the texts on the topic.
        """
        acted = self.find(Topic(episode_topics.ACTION, "m2distill_interfaces/msg/PolicyAction", episode_topics.COMMAND))
        followed = [getattr(message, "instruction", "") for _, message in self.messages(acted)]
        if any(followed):
            return list(dict.fromkeys(filter(None, followed)))
        recorded = self.find(Topic(episode_topics.INSTRUCTION, "std_msgs/msg/String", episode_topics.COMMAND))
        return list(dict.fromkeys(filter(None, (m.data.strip() for _, m in self.messages(recorded)))))


def _arrived(arrivals: TopicStatistics, waiting: list[tuple[int, int, Any]]) -> tuple[int, Any]:
    """Take the earliest of the waiting messages, and count it."""
    stamp_ns, _, message = heapq.heappop(waiting)
    arrivals.add(stamp_ns)
    return stamp_ns, message


def _check_metadata(reader: Reader, labels: object) -> None:
    """metadata.yaml has the types that everybody takes for granted."""
    counts = [reader.message_count, *(c.msgcount for c in reader.connections)]
    names = [name for c in reader.connections for name in (c.topic, c.msgtype)]
    if not all(isinstance(x, int) for x in counts) or not all(isinstance(x, str) for x in names):
        raise DataError(f"its {METADATA} names topics or counts messages in no way that rosbag2 does")
    texts = [text for item in labels.items() for text in item] if isinstance(labels, dict) else [None]
    for text in texts:
        if not isinstance(text, str) or not _is_storable(text):
            raise DataError(f"custom_data of its {METADATA} holds {text!r:.80}, expected texts")


def _is_storable(text: str) -> bool:
    """Return the value as an attribute of an HDF5 file."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def stamp_of(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


@contextmanager
def open_bag(path: Path, namespace: str | None = None) -> Iterator[EpisodeBag]:
    """Open a bag; `namespace` chooses one of several robots."""
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # YAML, mcap and SQLite: damaged or hostile bytes fail in whatever way
        raise DataError(
            f"it is no complete bag ({error}); `m2distill bag recover` repairs the bag of a recorder that crashed"
        ) from None
    try:
        yield EpisodeBag(path, reader, namespace)
    finally:
        reader.close()


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """Return the bags among the paths and directly below them, each once, in order.

    Raises DataError for a path without any.
    """
    if not paths:
        raise DataError("no bag given; name a folder that the recorder has written")
    bags = []
    for path in paths:
        found = [path] if (path / METADATA).is_file() else sorted(p.parent for p in path.glob(f"*/{METADATA}"))
        if not found:
            raise DataError(
                f"{path} is no bag, and holds none: there is no {METADATA}; give folders that the recorder "
                "or `ros2 bag record` has written"
            )
        bags += found
    return list(dict.fromkeys(bags))
