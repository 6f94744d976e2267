"""Import of recorded episodes as LIBERO-format files, one per instruction, with a report and images."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from m2distill_policy.cameras import Camera
from m2distill_policy.errors import DataError, UserError, unknown_name
from m2distill_policy.language.instruction_text import normalise
from m2distill_policy.recording.episode import FAILURE, UNKNOWN
from m2distill_policy.robot import Robot, other_robot, robot_from_settings
from m2distill_policy.safety.arm_presets import arm_names, load_arm, settings_from_json
from m2distill_policy.spec import PolicySpec
from m2distill_policy.utils.files import folder_in_use, write_atomically
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.libero.writer import NewDemo, file_names, write_demos
from m2distill_training.data.rosbag.bag_messages import EpisodeBag, find_bags, open_bag
from m2distill_training.data.rosbag.episode_reader import resample, without_idleness
from m2distill_training.data.rosbag.steps import Step

REPORT, IMAGES = "import.json", "images"
COLUMNS, CAPTION_PX = 8, 18  # of an episode's image: moments, height of its line
IMPORTED_LABELS = ("operator", "checkpoint_id", "arm", "recovered")  # that go into the new file


@dataclass
class EpisodeReport:
    """Report on one bag; `dropped` is empty if it became a demonstration."""

    bag: str
    dropped: str = ""
    instruction: str = ""
    success: str = ""
    file: str = ""
    demo: str = ""
    steps: int = 0
    seconds: float = 0.0
    idle_steps: int = 0  # cut off at both ends
    uncommanded_steps: int = 0  # without a fresh command: the arm stands still
    clipped_steps: int = 0  # commanded beyond [-1, 1]
    intervention_steps: int = 0
    lost_while_recording: dict[str, int] = field(default_factory=dict)
    rates_hz: dict[str, float] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)
    longest_gaps_ms: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        if self.dropped:
            return f"{Path(self.bag).name}  dropped: {self.dropped}"
        notes = [
            f"{count} steps {what}"
            for what, count in (
                ("idle, cut off", self.idle_steps),
                ("without a command", self.uncommanded_steps),
                ("clipped", self.clipped_steps),
                ("of an operator who took over", self.intervention_steps),
            )
            if count
        ]
        notes += [
            f"{topic}: {count} gaps, the longest {self.longest_gaps_ms[topic]} ms"
            for topic, count in self.gaps.items()
            if count
        ]
        notes += [f"{topic}: {count} lost" for topic, count in self.lost_while_recording.items() if count]
        rates = ", ".join(f"{topic} {rate:.1f}" for topic, rate in self.rates_hz.items())
        return "; ".join(
            [f"{Path(self.bag).name}  {self.demo}: {self.steps} steps, {self.seconds:.1f} s; Hz: {rates}", *notes]
        )


def import_bags(
    paths: Sequence[Path],
    out: Path,
    spec: PolicySpec | None = None,
    instruction: str | None = None,
    arm: str | None = None,
    unlabelled: bool = False,
    cameras: Sequence[Camera] = (),
    namespace: str | None = None,
    state: str | None = None,
) -> list[EpisodeReport]:
    """Write OUT/<instruction>_demo.hdf5, OUT/import.json and OUT/images/.

    `spec`, `instruction` and `arm` replace what the recorder stored. `cameras` state the keys of the spec's cameras in
    the files. `namespace` chooses one of several robots in a bag. `state` "hand" takes the pose of the hand in place of
    the joints. Raises DataError if no episode can be used, or a file exists.
    """
    if arm is not None:
        load_arm(arm)  # raises for all bags alike
    reports: list[EpisodeReport] = []
    files: dict[str, list[tuple[EpisodeReport, NewDemo]]] = {}  # by instruction
    specs: list[PolicySpec] = []
    images: dict[Path, bytes] = {}
    for path in find_bags(paths):
        report, demo, its_spec = convert_bag(
            path, spec, instruction, arm, unlabelled, cameras, namespace, state, specs[0] if specs else None
        )
        reports.append(report)
        if demo is None or its_spec is None:
            continue
        specs.append(its_spec)
        files.setdefault(normalise(report.instruction), []).append((report, demo))
        images[out / IMAGES / f"{path.name}.jpg"] = _contact_sheet(demo.demo, its_spec, report)
    _write(out, files, images, reports, cameras, specs[0] if specs else None)
    return reports


def convert_bag(
    path: Path,
    spec: PolicySpec | None = None,
    instruction: str | None = None,
    arm: str | None = None,
    unlabelled: bool = False,
    cameras: Sequence[Camera] = (),
    namespace: str | None = None,
    state: str | None = None,
    like: PolicySpec | None = None,
) -> tuple[EpisodeReport, NewDemo | None, PolicySpec | None]:
    """Return the report on one bag, its demonstration and spec; None for both if it is dropped.

    Arguments are those of `import_bags`; the robot and the cameras must be those of `like`.
    """
    report = EpisodeReport(str(path))
    try:
        with open_bag(path, namespace) as bag:
            report.instruction = _instruction(bag, instruction)
            report.success = bag.labels.get("success", "")
            _check_success(report.success, unlabelled)
            its_arm = _recorded_arm(bag) if arm is None else load_arm(arm)
            robot = robot_from_settings(its_arm)
            its_spec = _with_state(spec or _spec(bag, robot), state, robot)
            robot.check(its_spec, arm or bag.labels.get("arm", ""))
            _check_cameras(cameras, its_spec)
            if like is not None and (problem := other_robot(like, its_spec)):
                raise DataError(f"it is of another robot than the bags before it: {problem}; import them apart")
            if like is not None and its_spec.cameras != like.cameras:
                raise DataError(
                    "it was recorded for other images than the bags before it; name one --checkpoint for all"
                )
            return report, _demo(bag, its_spec, its_arm, report), its_spec
    except UserError as error:
        report.dropped = str(error)
        return report, None, None


def _write(
    out: Path,
    files: dict[str, list[tuple[EpisodeReport, NewDemo]]],
    images: dict[Path, bytes],
    reports: list[EpisodeReport],
    cameras: Sequence[Camera],
    spec: PolicySpec | None,
) -> None:
    if not files:
        raise DataError(
            "; ".join(f"{Path(r.bag).name}: {r.dropped}" for r in reports[:3])
            + (f"; and {len(reports) - 3} more" if len(reports) > 3 else "")
        )
    names = file_names(files)
    with folder_in_use(out):
        for name in names.values():
            if (out / name).exists():
                raise DataError(f"{out / name} exists; import into another folder, or remove it")
        (out / IMAGES).mkdir(exist_ok=True)
        for path, image in images.items():
            write_atomically(path, image)
        for text, members in files.items():
            for index, (report, _) in enumerate(members):
                report.file, report.demo = names[text], f"demo_{index}"
            write_demos(out / names[text], members[0][0].instruction, [demo for _, demo in members], cameras, spec)
        write_atomically(
            out / REPORT, json.dumps([dataclasses.asdict(report) for report in reports], indent=2).encode()
        )


def _check_cameras(cameras: Sequence[Camera], spec: PolicySpec) -> None:
    given, needed = sorted(camera.name for camera in cameras), sorted(camera.name for camera in spec.cameras)
    if given and given != needed:
        raise DataError(
            f"the spec has the cameras {', '.join(needed)}, --cameras lists {', '.join(given)}; list the same"
        )


def _instruction(bag: EpisodeBag, given: str | None) -> str:
    label = bag.labels.get("instruction", "")
    heard = bag.instructions()
    different = {normalise(text): text for text in (*heard, *([label] if label else []))}
    if given is None and len(different) > 1:
        raise DataError(
            f"it has {len(different)} instructions, {' and '.join(map(repr, different.values()))}; "
            "one episode shows one task. Record them apart, or name the right one with --instruction"
        )
    found = given or label or next(iter(different.values()), "")
    if not normalise(found):
        raise DataError("it has no instruction; name it with --instruction")
    return found


def _check_success(success: str, unlabelled: bool) -> None:
    if success == FAILURE:
        raise DataError("it is labelled a failure")
    if success == UNKNOWN and not unlabelled:
        raise DataError("nobody has judged whether it succeeded; --unlabelled takes it all the same")


def _spec(bag: EpisodeBag, robot: Robot) -> PolicySpec:
    """Return the spec that the recorder stored, else that of the arm file."""
    if "spec" not in bag.labels:
        if robot.described:
            return robot.spec()
        raise DataError(
            "it names no spec, for it is not the recorder's; name a policy's with --checkpoint, or an arm file with "
            "cameras and joint_names (or `state: hand`) with --arm"
        )
    return PolicySpec.from_json(bag.labels["spec"])


def _with_state(spec: PolicySpec, state: str | None, robot: Robot) -> PolicySpec:
    """Return the spec of a policy that observes this state of the arm; None: as it is."""
    if state == "joints" and spec.observes_hand:
        raise DataError("its spec has the pose of the hand, and no joints; name another --checkpoint or --arm")
    if state != "hand" or spec.observes_hand:
        return spec
    own = "hand_reference" in robot.given
    reference = robot.parameters.hand_reference if own else spec.hand_reference
    return dataclasses.replace(spec.observing_hand(), hand_reference=reference)


def _recorded_arm(bag: EpisodeBag) -> dict[str, Any]:
    """Return the settings that the recorder noted, else those of the noted preset, else of the simulated arm."""
    if "arm_settings" in bag.labels:
        return settings_from_json(bag.labels["arm_settings"])
    name = bag.labels.get("arm", "libero_sim")
    if name not in arm_names():  # a bag from elsewhere must not choose which file is read
        raise DataError(f"{unknown_name('arm', name, arm_names())}; name a preset or an arm file with --arm")
    return load_arm(name)


def _demo(bag: EpisodeBag, spec: PolicySpec, arm: Mapping[str, Any], report: EpisodeReport) -> NewDemo:
    everything = resample(bag, spec, arm)
    steps = without_idleness(everything)
    if not steps:
        raise DataError("no motion: neither the arm nor the gripper receives a command")
    report.steps, report.idle_steps = len(steps), len(everything) - len(steps)
    report.seconds = round(len(steps) / spec.rate_hz, 3)
    report.uncommanded_steps = sum(not step.commanded for step in steps)
    report.clipped_steps = sum(step.clipped for step in steps)
    report.intervention_steps = sum(step.intervention for step in steps)
    for topic, arrivals in bag.arrivals.items():
        report.rates_hz[topic] = round(arrivals.rate_hz, 2)
        report.gaps[topic] = arrivals.gaps
        report.longest_gaps_ms[topic] = round(arrivals.longest_ns * 1e-6)
    report.lost_while_recording = _lost(bag.labels.get("arrivals", "{}"))
    labels = {name: bag.labels[name] for name in IMPORTED_LABELS if name in bag.labels}
    return NewDemo(
        _stack(bag.path.name, steps, spec),
        {"intervention": np.array([step.intervention for step in steps], np.uint8)},
        {"bag": bag.path.name, **labels},
    )


def _lost(arrivals: str) -> dict[str, int]:
    """Return the messages per topic of a recorder's label."""
    try:
        return {topic: int(numbers["lost"]) for topic, numbers in json.loads(arrivals).items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise DataError(f"its label arrivals is {arrivals:.80}, expected what the recorder writes") from None


def _stack(name: str, steps: list[Step], spec: PolicySpec) -> Demo:
    """Return upright images of the model's size, so that training does not resize them."""
    seen = [step.observation for step in steps]
    return Demo(
        name,
        {
            c.name: np.stack([o.images[c.name][::-1] if c.upside_down else o.images[c.name] for o in seen])
            for c in spec.cameras
        },
        np.stack([o.joint for o in seen]),
        np.stack([o.gripper for o in seen]),
        np.stack([step.action for step in steps]).astype(np.float32),
    )


def _contact_sheet(demo: Demo, spec: PolicySpec, report: EpisodeReport) -> bytes:
    """Return a JPEG with moments from left to right, one row per camera, and a line of text below."""
    moments = np.linspace(0, len(demo.action) - 1, COLUMNS).round().astype(int)
    rows = [np.concatenate(list(images[moments]), axis=1) for images in demo.images.values()]
    width = max(row.shape[1] for row in rows)  # cameras may differ in size
    sheet = np.concatenate([cv2.resize(row, (width, round(len(row) * width / row.shape[1]))) for row in rows])
    caption = np.full((CAPTION_PX, sheet.shape[1], 3), 255, np.uint8)
    cv2.putText(
        caption,
        f"{demo.name}  {report.seconds:.1f} s  {report.instruction}",
        (4, CAPTION_PX - 5),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.4,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )
    return cv2.imencode(".jpg", np.concatenate([sheet, caption])[:, :, ::-1])[1].tobytes()
