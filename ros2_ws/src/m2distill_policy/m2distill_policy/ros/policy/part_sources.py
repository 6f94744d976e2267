"""Publishers of parts: several may publish joint states, or transforms, as long as each part comes from one of them."""

from collections.abc import Iterable, Sequence

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from m2distill_policy.ros.common.topic_checks import named_publishers, node_of

SURE = 2  # decreases of a part's message numbers: after one of them its driver may have been restarted


class PartSources:
    """Finds parts, joints or frames, that more than one publisher supplies.

    The middleware numbers the messages of each publisher. If the numbers of the messages that contain a part decrease
    again and again, they come from several publishers. Without numbers every second publisher is a conflict.

    Args:
        node: Node that subscribes to the topic.
        topic: Full name of the topic.
        kind: Type of its messages, as "package/msg/Name".
        parts: Names of the required parts.
    """

    def __init__(self, node: Node, topic: str, kind: str, parts: Sequence[str] = ()):
        self._node, self._topic, self._kind, self.parts = node, topic, kind, frozenset(parts)
        self._numbers: dict[str, int] = {}  # of the last message with each part
        self._forget(frozenset())

    def received(self, names: Iterable[str], number: int | None) -> None:
        """Process the parts and the number of a message."""
        for name in self.parts.intersection(names):
            before, self._numbers[name] = self._numbers.get(name), number or 0
            if before is not None and self._numbers[name] <= before and not self.conflict:
                self._decreased(name)

    def check_graph(self) -> None:
        """End the conflict after the publishers have changed."""
        if self.conflict and self._ids() != self._seen:
            self._forget(frozenset())

    def _decreased(self, part: str) -> None:
        if (ids := self._ids()) != self._seen:
            self._forget(ids)
        self._decreases[part] = self._decreases.get(part, 0) + 1
        if self._decreases[part] >= SURE and len(ids) > 1:
            sources = ", ".join(sorted(node_of(publisher) for publisher in self._publishers()))
            self.conflict = f"{self._topic}: {part} is published by more than one of {sources}; stop the others"

    def _forget(self, seen: frozenset[tuple[int, ...]]) -> None:
        self._seen = seen  # ids of the publishers when a number last decreased
        self._decreases: dict[str, int] = {}
        self.conflict = ""

    def _ids(self) -> frozenset[tuple[int, ...]]:
        return frozenset(tuple(publisher.endpoint_gid) for publisher in self._publishers())

    def _publishers(self) -> list[TopicEndpointInfo]:
        return [p for p in named_publishers(self._node, self._topic) if p.topic_type == self._kind]
