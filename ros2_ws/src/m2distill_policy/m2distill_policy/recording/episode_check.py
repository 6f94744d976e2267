"""What an import would drop, known while the episode is recorded. No ROS here.

The importer (`m2distill import bag`) drops an episode without commands or motion, with two instructions, or with a gap
in its observations. `EpisodeCheck` counts only gaps in which a step of the policy surely falls, so it never rejects an
episode that the import would take. A shorter gap may still fall between two steps or not.
"""

from collections.abc import Collection

from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.safety.arm_presets import limits_of
from m2distill_policy.spec import PolicySpec

# The limits of ages with which the import reads every arm's episodes.
IMPORT_ARM = "libero_sim"


class EpisodeCheck:
    """Content of one episode.

    Args:
        spec: Spec of the policy.
        streams: Names of the topics that a step consists of.
        commands: Names of the topics with commands of the arm and of the gripper.
    """

    def __init__(self, spec: PolicySpec, streams: Collection[str], commands: Collection[str]):
        limits = limits_of(IMPORT_ARM)
        self._max_age_ns = round(limits.max_age_s * 1e9) + spec.period_ns
        self._max_skew_ns, self._period_ns = round(limits.max_skew_s * 1e9), spec.period_ns
        self._needed, self._streams = {*streams, *commands}, frozenset(streams)
        self.restart()

    def restart(self) -> None:
        """Forget everything, because an episode starts."""
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
        if self._gap:
            return f"{self._gap[0]} has a gap of {self._gap[1] * 1e-6:.0f} ms, in which the policy would have held"
        return ""
