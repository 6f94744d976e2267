"""Log and diagnostics of the recorder."""

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from m2distill_policy.bringup.parameters import RecorderParameters
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.recorder.episode_controller import EpisodeController
from m2distill_policy.ros.recorder.topic_recorder import TopicRecorder


class StatusReporter:
    """Reports problems of the recording, and ends an episode when the disk is nearly full."""

    def __init__(
        self,
        entities: ManagedEntities,
        episodes: EpisodeController,
        topics: TopicRecorder,
        read_settings: Callable[[], RecorderParameters],
    ):
        self._node, self._episodes, self._topics = entities.node, episodes, topics
        self._read_settings = read_settings
        self._publisher = entities.publisher(DiagnosticArray, "/diagnostics", 10)
        self._logged: set[str] = set()  # problems that were logged and still exist

    def restart(self) -> None:
        """Log all problems again, because a new episode has started."""
        self._logged.clear()

    def report(self) -> None:
        """Log new problems and publish /diagnostics."""
        episodes, log = self._episodes, self._node.get_logger()
        slow, gaps = self._topics.slow_topics(), episodes.gaps()
        if episodes.episode:  # a simulator that waits in lockstep is slow without being wrong
            # by topic, because the rate of a slow one differs every time
            present = {**slow, **{problem: problem for problem in gaps}}
            for problem in present.keys() - self._logged:
                log.warning(present[problem])
            self._logged = set(present)
        problems = [*slow.values(), *gaps]
        free_mib, min_free_mib = episodes.free_mib(), self._read_settings().min_free_mib
        if free_mib < min_free_mib:
            problems.append(f"{free_mib} MiB left on the disk, required are {min_free_mib}")
            if episodes.episode:
                episodes.end_unjudged(problems[-1])
        if episodes.failure:
            problems.append(episodes.failure)
        activity = f"recording {episodes.episode.name}" if episodes.episode else "waiting"
        bag = episodes.episode.bag if episodes.episode else None
        values = {
            "free (MiB)": str(free_mib),
            "messages": str(bag.messages if bag else 0),
            **{f"{name} (messages)": str(count) for name, count in (bag.counts if bag else {}).items()},
            **{f"{name} (Hz)": f"{rate:.1f}" for name, rate in self._topics.rates_hz().items()},
        }
        level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
        self._publish("; ".join([activity, *problems]), level, values)

    def _publish(self, text: str, level: bytes, values: dict[str, str]) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.status.append(
            DiagnosticStatus(
                level=level,
                name=f"{self._node.get_fully_qualified_name()}: recorder",
                message=text,
                values=[KeyValue(key=key, value=value) for key, value in values.items()],
            )
        )
        self._publisher.publish(message)
