"""The lifecycle node `recorder`: a file per episode of all that a policy hears and says, told by services and a topic.

Messages are written as they came over the wire. Topics, services, files: docs/recording.md; what is on disk and what
survives which death: episode.py. While inactive the node listens, so that an instruction given before is known.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.serialization import deserialize_message
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyStatus
from m2distill_policy.errors import UserError, unknown_name
from m2distill_policy.recording import episode_topics
from m2distill_policy.recording.episode import FAILURE, SUCCESS, UNKNOWN, RecordedEpisode, Recordings
from m2distill_policy.recording.topic_statistics import TopicStatistics
from m2distill_policy.ros.common import parameters
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.diagnostics import InputMonitor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.process import COMPLAINT_PERIOD_S, run_node
from m2distill_policy.ros.recorder import raw_subscription
from m2distill_policy.ros.recorder.bag_types import bag_types
from m2distill_policy.safety.arm_presets import arm_names, load_arm, resolve_arm, settings_to_json
from m2distill_policy.spec import read_spec
from m2distill_policy.utils.parameters import parameter

MOST_WAITING = 1000  # messages of a topic, taken at the end of an episode
FLUSH_PERIOD_S = 0.25  # what the death of this process may cost
SYNC_PERIOD_S = 1.0  # what the death of the machine may cost
WATCH_PERIOD_S = 1.0
LEAST_RATE = 0.8  # of the control rate
MIB = 2**20


@dataclass(frozen=True)
class RecorderParameters:
    directory: str = parameter("episodes", "folder of the episodes", read_only=True)
    checkpoint: str = parameter("", "checkpoint whose spec says what there is to record", read_only=True)
    operator: str = parameter("", "who teleoperates or watches; a label of the episodes")
    arm: str = parameter(
        "libero_sim",
        f"arm of the episodes, whose gains the importer needs: a preset ({', '.join(arm_names())}) or the path of an "
        "arm file",
        read_only=True,
    )
    image_transport: str = parameter(
        "raw",
        "raw: <camera>/image_raw; compressed: <camera>/image_raw/compressed",
        choices=("raw", "compressed"),
        read_only=True,
    )
    autostart: bool = parameter(False, "configure and activate at start, without a lifecycle manager", read_only=True)
    max_gap_s: float = parameter(
        0.25, "a longer silence of a camera or the joints is told", at_least=0.01, at_most=60.0, read_only=True
    )
    min_free_mib: int = parameter(
        2000,
        "no episode begins, and the open one is ended and kept, with less space on the disk",
        at_least=10,
        at_most=10**9,
    )


class RecorderNode(LifecycleNode):
    def __init__(self):
        super().__init__("recorder")
        parameters.declare(self, RecorderParameters)
        self.problem = ""  # why the last transition failed
        self._made = ManagedEntities(self)
        self._active = self._finalized = False
        self._episode: RecordedEpisode | None = None

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure(parameters.read(self, RecorderParameters))
        except UserError as error:
            self._made.destroy()
            self.problem = str(error)
            self.get_logger().error(self.problem)
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def _configure(self, settings: RecorderParameters) -> None:
        entities = self._made
        if not settings.checkpoint:
            raise UserError("no checkpoint; set the parameter `checkpoint` to a checkpoint's directory")
        spec, checkpoint_id = read_spec(Path(settings.checkpoint))
        self._labels = {
            "instruction": "",
            "success": UNKNOWN,
            "checkpoint_id": checkpoint_id,
            "spec": spec.to_json(),
            "arm": resolve_arm(settings.arm),
            "arm_settings": settings_to_json(load_arm(settings.arm)),  # the file may change before the import
        }
        self._cameras: dict[str, dict] = {}  # what camera_info says, by camera
        self._recordings = Recordings(Path(settings.directory))
        entities.at_destruction(self._recordings.close)
        for folder in self._recordings.unfinished():
            self.get_logger().warning(f"{folder} was not finished; `m2distill bag recover {settings.directory}`")
        self._background = BackgroundExecutor()
        entities.at_destruction(self._background.end)
        self._syncing = False
        self._trouble: set[str] = set()
        self._lost = ""  # what became of the last episode, where the disk has refused
        self._max_gap_ns = round(settings.max_gap_s * 1e9)
        self._least_rate_hz = LEAST_RATE * spec.rate_hz
        self._types = bag_types()
        self._topics = episode_topics.episode_topics(spec, settings.image_transport == "compressed")
        self._watched = [topic.name for topic in self._topics if topic.continuous]
        self._names = {topic.name: f"{self.get_namespace().rstrip('/')}/{topic.name}" for topic in self._topics}
        listeners: dict[str, Callable[[Any], None]] = {
            episode_topics.INSTRUCTION: self._on_instruction,
            episode_topics.STATUS: self._on_status,
            **{episode_topics.camera_info(c.name).name: partial(self._on_camera_info, c.name) for c in spec.cameras},
        }
        self._ears: list[Subscription] = []
        for topic in self._topics:
            kind = raw_subscription.message_class(topic.type)
            # rclpy declares callbacks of the message alone.
            hear: Any = partial(self._on_message, topic.name, kind, listeners.get(topic.name))
            subscription = self.create_subscription(kind, topic.name, hear, raw_subscription.qos(topic), raw=True)
            self._ears.append(subscription)
            entities.at_destruction(partial(self.destroy_subscription, subscription))
        self._diagnostics_pub = entities.publisher(DiagnosticArray, "/diagnostics", 10)
        for name, verb in self._verbs.items():
            entities.service(f"~/{name}", lambda _, response, verb=verb: self._serve(verb, response))
        entities.subscription(String, "~/command", self._on_command, 10)
        entities.timer(FLUSH_PERIOD_S, self._flush)
        entities.timer(SYNC_PERIOD_S, self._sync)
        entities.timer(WATCH_PERIOD_S, self._watch)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        self._active = True
        self._monitor = InputMonitor(self._watched, self._max_gap_ns)
        self._made.start_timers()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._rest()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._made.destroy()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._rest()
        self._made.destroy()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._rest()
        self._made.destroy()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        if not self._finalized:
            self.trigger_shutdown()

    def _rest(self) -> None:
        """An episode that nobody has judged is kept, without a judgement."""
        if self._episode:
            self._hear_what_waits()
        if self._episode:  # unless the disk has refused what waited
            self._end_unjudged("the recorder was stopped")
        self._active = False
        self._made.stop_timers()

    # --- what it is told to do; each verb returns what it did

    @property
    def _verbs(self) -> dict[str, Callable[[], str]]:
        return {
            "start": self.start,
            "keep": self.keep,
            "discard": self.discard,
            "success": lambda: self.label(success=SUCCESS),
            "failure": lambda: self.label(success=FAILURE),
        }

    def start(self) -> str:
        if self._episode:
            raise UserError(f"{self._episode.name} is being recorded; keep or discard it first")
        settings = parameters.read(self, RecorderParameters)
        free_mib = self._recordings.free_bytes() // MIB
        if free_mib < settings.min_free_mib:
            raise UserError(
                f"{settings.directory} has {free_mib} MiB left, needed are {settings.min_free_mib} "
                "(min_free_mib); make room"
            )
        self._arrivals = {name: TopicStatistics(self._max_gap_ns) for name in self._watched}
        self._trouble.clear()
        self._episode = self._recordings.begin(
            {self._names[topic.name]: topic.type for topic in self._topics},
            self._types,
            {**self._labels, "operator": settings.operator, "camera_info": json.dumps(self._cameras)},
        )
        self._lost = ""
        return f"recording {self._episode.name}"

    def keep(self) -> str:
        """A success, unless it was labelled a failure."""
        self._hear_what_waits()
        episode = self._open()
        if not episode.labels["instruction"]:
            raise UserError(
                "no instruction was heard, and an episode without one teaches nothing; send `instruction "
                "TEXT` on ~/command and keep again; recording goes on"
            )
        if episode.labels["success"] == UNKNOWN:
            episode.label(success=SUCCESS)
        trouble = self._troubles() + [
            f"{name}: nothing received"
            for name in (episode_topics.TWIST, episode_topics.GRIPPER)
            if not episode.bag.counts[self._names[name]]
        ]
        messages, path = episode.bag.messages, self._finish()
        return f"kept {path}: {messages} messages" + (f"; {'; '.join(trouble)}" if trouble else "")

    def discard(self) -> str:
        return f"discarded; until you remove it, it is {self._take().discard()}"

    def label(self, **labels: str) -> str:
        episode = self._open()
        episode.label(**labels)
        return f"{episode.name}: {', '.join(f'{name} {value!r}' for name, value in labels.items())}"

    def instruct(self, text: str) -> str:
        """Of the open episode, and of those to come until another instruction is heard."""
        if not text:
            raise UserError("`instruction` lacks its text")
        self._labels["instruction"] = text
        return self.label(instruction=text) if self._episode else f"next episodes: {text!r}"

    def _open(self) -> RecordedEpisode:
        if self._episode is None:
            raise UserError(self._lost or "no episode is being recorded; start one")
        return self._episode

    def _take(self) -> RecordedEpisode:
        """The open episode is about to be closed."""
        episode, self._episode = self._open(), None
        self._background.end()  # it may be at work on the file
        self._syncing = False
        return episode

    def _finish(self) -> Path:
        episode = self._take()
        episode.labels["arrivals"] = json.dumps(
            {
                name: {"count": a.count, "gaps": a.gaps, "lost": a.lost, "longest_gap_ms": round(a.longest_ns / 1e6)}
                for name, a in self._arrivals.items()
            }
        )
        return episode.keep()

    def _hear_what_waits(self) -> None:
        """What has arrived belongs to the episode that is about to end, and the executor takes no more than one message
        of each topic before it serves a request."""
        for subscription in self._ears:
            for _ in range(MOST_WAITING):
                with subscription.handle:
                    waiting = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if waiting is None:
                    break
                subscription.callback(*waiting)

    def _end_unjudged(self, why: str) -> None:
        with self._disk():
            self.get_logger().error(f"{why}: kept {self._finish()} as it is, without a judgement")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """It may be full, or gone."""
        try:
            yield
        except OSError as error:
            self.get_logger().error(self._give_up(error))

    def _give_up(self, error: Exception) -> str:
        """The disk refuses: an open episode ends where it is. Returns what there is to tell, now and until the next
        episode: the operator may be in the middle of one."""
        if self._episode:
            self._take().bag.abort()
        self._lost = (
            f"the disk refuses: {error}; if an episode was open, make room, end the recorder and run "
            f"`m2distill bag recover {self._recordings.root}`"
        )
        return self._lost

    def _serve(self, verb: Callable[[], str], response: Trigger.Response) -> Trigger.Response:
        try:
            if not self._active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = verb(), True
            self.get_logger().info(response.message)
        except (UserError, OSError) as error:
            response.success = False
            response.message = str(error) if isinstance(error, UserError) else self._give_up(error)
            self.get_logger().warning(response.message)
        return response

    def _on_command(self, message: String) -> None:
        """`start`, `keep`, `discard`, `success`, `failure` or `instruction TEXT`."""
        word, _, rest = message.data.strip().partition(" ")
        verbs = {**self._verbs, "instruction": lambda: self.instruct(rest.strip())}
        if word in verbs:
            self._serve(verbs[word], Trigger.Response())
        else:
            self.get_logger().warning(unknown_name("command", word, verbs))

    # --- messages

    def _on_message(
        self, name: str, kind: type, listen: Callable[[Any], None] | None, raw: bytes, info: dict[str, int]
    ) -> None:
        if self._active and name in self._watched:
            self._monitor.heard(name, self._made.steady.now().nanoseconds)
        with self._disk():
            if self._episode:
                time_ns = info["source_timestamp"]  # the order of sending, whatever the order of hearing
                self._episode.bag.write(self._names[name], time_ns, raw)
                if name in self._arrivals:
                    self._arrivals[name].add(time_ns, info["publication_sequence_number"])
            if listen:
                self._listen(name, kind, listen, raw)

    def _listen(self, name: str, kind: type, listen: Callable[[Any], None], raw: bytes) -> None:
        try:
            message = deserialize_message(raw, kind)
        except Exception as error:  # whatever a peer's bytes provoke
            self.get_logger().warning(
                f"a message on {name} cannot be read: {error}", throttle_duration_sec=COMPLAINT_PERIOD_S
            )
        else:
            listen(message)

    def _on_instruction(self, message: String) -> None:
        text = message.data.strip()
        if not text:
            return  # it means: stop
        self._labels["instruction"] = text
        if self._episode and not self._episode.labels["instruction"]:
            self._episode.label(instruction=text)

    def _on_status(self, status: PolicyStatus) -> None:
        self._labels["checkpoint_id"] = status.checkpoint_id
        if self._episode and self._episode.labels["checkpoint_id"] != status.checkpoint_id:
            self._episode.label(checkpoint_id=status.checkpoint_id)

    def _on_camera_info(self, camera: str, info: CameraInfo) -> None:
        if camera in self._cameras:
            return
        self._cameras[camera] = {
            "width": info.width,
            "height": info.height,
            "distortion_model": info.distortion_model,
            "d": list(info.d),
            "k": list(info.k),
            "r": list(info.r),
            "p": list(info.p),
        }
        if self._episode:
            self._episode.label(camera_info=json.dumps(self._cameras))

    # --- by the clock

    def _flush(self) -> None:
        if self._episode:
            with self._disk():
                self._episode.bag.flush()

    def _sync(self) -> None:
        self._background.poll()
        if self._episode and not self._syncing:
            self._syncing = True
            self._background.run(self._episode.bag.sync, self._synced)

    def _synced(self, _, error: Exception | None) -> None:
        self._syncing = False
        if error:
            self.get_logger().error(self._give_up(error))

    def _watch(self) -> None:
        trouble = self._troubles()
        for text in trouble:
            if text not in self._trouble:
                self.get_logger().warning(text)
        self._trouble = set(trouble)
        settings = parameters.read(self, RecorderParameters)
        free_mib = self._recordings.free_bytes() // MIB
        if free_mib < settings.min_free_mib:
            trouble.append(f"{free_mib} MiB left on the disk, needed are {settings.min_free_mib}")
            if self._episode:
                self._end_unjudged(trouble[-1])
        if self._lost:
            trouble.append(self._lost)
        doing = f"recording {self._episode.name}" if self._episode else "waiting"
        numbers = {
            "free (MiB)": str(free_mib),
            "messages": str(self._episode.bag.messages if self._episode else 0),
            **{f"{name} (Hz)": f"{rate:.1f}" for name, rate in self._rates_hz().items()},
        }
        self._diagnose("; ".join([doing, *trouble]), DiagnosticStatus.WARN if trouble else DiagnosticStatus.OK, numbers)

    def _diagnose(self, text: str, level: bytes, numbers: dict[str, str]) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        name = f"{self.get_fully_qualified_name()}: recorder"
        message.status.append(
            DiagnosticStatus(
                level=level,
                name=name,
                message=text,
                values=[KeyValue(key=key, value=value) for key, value in numbers.items()],
            )
        )
        self._diagnostics_pub.publish(message)

    def _rates_hz(self) -> dict[str, float]:
        return self._monitor.rates_hz(self._made.steady.now().nanoseconds)

    def _troubles(self) -> list[str]:
        trouble = [
            f"{name} comes at {rate:.0f} Hz, needed are {self._least_rate_hz:g}"
            for name, rate in self._rates_hz().items()
            if rate < self._least_rate_hz
        ]
        if self._episode:
            trouble += [
                f"{name}: {arrivals.problems()}" for name, arrivals in self._arrivals.items() if arrivals.problems()
            ]
        return trouble


def main() -> int:
    return run_node(RecorderNode, lifecycle=True)


if __name__ == "__main__":
    sys.exit(main())
