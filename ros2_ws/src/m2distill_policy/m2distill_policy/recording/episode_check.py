"""What an import would drop, known while the episode is recorded. No ROS here.

The importer (`m2distill import bag`) drops an episode without commands or motion, with two instructions, or with a gap
in its observations. `Grid` makes the importer's steps of an episode without a policy's actions. If the policy has
acted, the steps are its own. Then `EpisodeCheck` counts only gaps in which one of them surely falls, and rejects no
episode that the import would take.
"""

import copy
import heapq
from collections.abc import Collection

from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.spec import PolicySpec

# The limits of ages with which the import reads every arm's episodes.
IMPORT_ARM = "libero_sim"


REORDER_NS = 1_000_000_000  # messages of different topics may be received in another order than that of their stamps


class Grid:
    """The importer's steps of an episode, from the stamps of its observations.

    Args:
        streams: Names of the topics that a step consists of.
        period_ns: Period of the steps. The first one is at the stamp that completes the first set.
        max_age_ns: Age of a topic's newest message above which a step is held.
        max_skew_ns: Difference between the newest messages of two topics above which a step is held.
    """

    def __init__(self, streams: Collection[str], period_ns: int, max_age_ns: int, max_skew_ns: int):
        self._streams, self._period_ns = frozenset(streams), period_ns
        self._max_age_ns, self._max_skew_ns = max_age_ns, max_skew_ns
        self._waiting: list[tuple[int, str]] = []  # heap
        self._newest_ns = self._next_ns = 0
        self._last_ns: dict[str, int] = {}
        self._began = False
        self._held: tuple[str, int] | None = None  # stream, and stamp of its last message before the first held step
        self.gap: tuple[str, int] | None = None  # stream and duration of the first gap

    def add(self, stream: str, stamp_ns: int) -> None:
        """Add a message of a topic."""
        heapq.heappush(self._waiting, (stamp_ns, stream))
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._take_until(self._newest_ns - REORDER_NS)

    def finished(self) -> "Grid":
        """Return the grid of the episode if it ended now."""
        grid = copy.deepcopy(self)
        grid._take_until(grid._newest_ns)
        if len(grid._last_ns) == len(grid._streams):
            grid._step_until(grid._newest_ns + 1)
        return grid

    def _take_until(self, end_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= end_ns:
            stamp_ns, stream = heapq.heappop(self._waiting)
            complete = len(self._last_ns) == len(self._streams)
            if complete:
                self._step_until(stamp_ns)
            self._last_ns[stream] = stamp_ns
            if not complete and len(self._last_ns) == len(self._streams):
                self._next_ns = stamp_ns

    def _step_until(self, end_ns: int) -> None:
        while self._next_ns < end_ns:
            oldest = min(self._last_ns, key=lambda stream: self._last_ns[stream])
            age_ns = self._next_ns - self._last_ns[oldest]
            skew_ns = max(self._last_ns.values()) - self._last_ns[oldest]
            if age_ns > self._max_age_ns or skew_ns > self._max_skew_ns:
                self._held = self._held or (oldest, self._last_ns[oldest])
                self._next_ns += (
                    (end_ns - 1 - self._next_ns) // self._period_ns * self._period_ns
                )  # as held, until then
            else:
                if self._began and self._held:
                    stream, before_ns = self._held
                    self.gap = self.gap or (stream, self._last_ns[stream] - before_ns)
                self._began, self._held = True, None
            self._next_ns += self._period_ns


class EpisodeCheck:
    """Content of one episode.

    Args:
        spec: Spec of the policy.
        streams: Names of the topics that a step consists of.
        commands: Names of the topics with commands of the arm and of the gripper.
    """

    def __init__(self, spec: PolicySpec, streams: Collection[str], commands: Collection[str]):
        limits = limits_of(IMPORT_ARM)
        age_ns = round(limits.max_age_s * 1e9)
        self._grid_settings = (streams, spec.period_ns, age_ns, round(limits.max_skew_s * 1e9))
        self._max_age_ns = age_ns + spec.period_ns
        self._max_skew_ns, self._period_ns = round(limits.max_skew_s * 1e9), spec.period_ns
        self._needed, self._streams = {*streams, *commands}, frozenset(streams)
        self.restart()

    def restart(self) -> None:
        """Forget everything, because an episode starts."""
        self._grid = Grid(*self._grid_settings)
        self._missing = set(self._needed)
        self._last_ns: dict[str, int] = {}  # stamp of the last message, by stream
        self._behind_ns: dict[str, int] = {}  # stamp since which a stream is too old beside the others
        self._gap: tuple[str, int] | None = None  # stream and duration of the longest
        self._grips: set[float] = set()  # commands of the gripper, two at most
        self._moves = False
        self._sent: dict[str, str] = {}  # texts on the topic `instruction`, by their normal form
        self._followed: dict[str, str] = {}  # instructions of the policy's actions, by their normal form

    @property
    def acted(self) -> bool:
        """Whether the policy has acted in this episode."""
        return bool(self._followed)

    def stamped(self, stream: str, stamp_ns: int | None) -> None:
        """Notice an observation; one without a stamp cannot be decoded."""
        if stamp_ns is None:
            return
        self._missing.discard(stream)
        self._grid.add(stream, stamp_ns)
        before_ns = self._last_ns.get(stream)
        behind_ns = self._behind_ns.pop(stream, stamp_ns)
        if before_ns is not None and len(self._last_ns) == len(self._streams):  # the import starts when all are there
            silent_ns = stamp_ns - before_ns
            held = silent_ns > self._max_age_ns or stamp_ns - behind_ns > self._period_ns
            if held and silent_ns > (self._gap[1] if self._gap else 0):
                self._gap = stream, silent_ns
        self._last_ns[stream] = stamp_ns
        for other, last_ns in self._last_ns.items():
            if stamp_ns - last_ns > self._max_skew_ns:
                self._behind_ns.setdefault(other, stamp_ns)

    def moved(self, topic: str, speed: float) -> None:
        """Notice a command of the arm; `speed` is 0 for none."""
        self._missing.discard(topic)
        self._moves |= speed != 0.0

    def gripped(self, topic: str, opening_m: float) -> None:
        """Notice a command of the gripper."""
        self._missing.discard(topic)
        if len(self._grips) < 2:
            self._grips.add(opening_m)

    def sent(self, text: str) -> None:
        """Notice a text on the topic `instruction`."""
        if normalise(text):
            self._sent.setdefault(normalise(text), text.strip())

    def followed(self, instruction: str) -> None:
        """Notice an action of the policy under this instruction."""
        if normalise(instruction):
            self._followed.setdefault(normalise(instruction), instruction)

    def problem(self, label: str) -> str:
        """Return why an import would drop the episode with this instruction as its label; empty if nothing is known."""
        shown = {**(self._followed or self._sent), normalise(label): label}
        if len(shown) > 1:
            texts = " and ".join(map(repr, shown.values()))
            return f"it has {len(shown)} instructions, {texts}; one episode shows one task"
        if self._missing:
            return f"it has no message on {', '.join(sorted(self._missing))}"
        if not (self._moves or len(self._grips) > 1):
            return "it has no motion: neither the arm nor the gripper received a command to move"
        if gap := self._gap if self.acted else self._grid.finished().gap:
            return f"{gap[0]} has a gap of {gap[1] * 1e-6:.0f} ms, in which the policy would have held"
        return ""
