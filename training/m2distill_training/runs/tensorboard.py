"""TensorBoard events of a run: its log, and what evaluation and drift measured, on one axis of gradient steps.

The global step counts the gradient steps of all stages. metrics.jsonl, evaluation.json and drift.json remain the
record. All files lie in one folder, so TensorBoard shows one run; each source has a file of its own, which is written
again as a whole when a stage is resumed or the run is evaluated again.

They are written with tensorboardX's record writer. Its SummaryWriter uses a thread that ends silently on a full disk,
after which the next event waits forever.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from m2distill_training.runs.records import writing

FOLDER = "tensorboard"
Points = list[tuple[int, dict[str, float]]]  # global step, values by tag


class ScalarEvents:
    """Writer of one source's events. It removes earlier ones, so that a resumed run shows each step once."""

    def __init__(self, folder: Path, source: str):
        self._folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for earlier in folder.glob(f"{source}.*"):
                earlier.unlink(missing_ok=True)
            self._writer = EventsWriter(str(folder / source))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write one event. Raises RunError."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=x) for name, x in values.items()])
        with writing(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._writer.flush()

    def close(self) -> None:
        """Close the file: every event has been flushed, and failures have been reported."""
        with suppress(OSError):
            self._writer.close()


def write_events(folder: Path, source: str, points: Points) -> None:
    """Replace the events of a source that is known as a whole. Raises RunError."""
    events = ScalarEvents(folder, source)
    try:
        for step, values in points:
            events.write(step, values)
    finally:
        events.close()


def stage_ends(lines: Sequence[dict]) -> dict[int, int]:
    """Return {stage: global step at its end} of lines of metrics.jsonl, 0 for stage 0 and before every log."""
    last: dict[int, int] = {}
    for line in lines:
        last[line["stage"]] = max(line["step"], last.get(line["stage"], 0))
    ends = {0: 0}
    for stage in range(1, max(last, default=0) + 1):
        ends[stage] = ends[stage - 1] + last.get(stage, 0)
    return ends


def log_values(line: dict) -> dict[str, float]:
    """Return the values of a line of metrics.jsonl, with the share of each term in the sum of the gradients' norms."""
    values = {name: float(x) for name, x in line.items() if name not in ("stage", "step")}
    norms = {
        name.removeprefix("grad_norm_"): x * line.get(name.replace("grad_norm_", "multiplier_"), 1.0)
        for name, x in line.items()
        if name.startswith("grad_norm_")
        and (name == "grad_norm_bc" or name.replace("grad_norm_", "multiplier_") in line)
    }
    total = sum(norms.values())
    return values | ({f"gradient_share/{name}": x / total for name, x in norms.items()} if total > 0 else {})


def log_points(lines: Sequence[dict]) -> Points:
    """Return the points of all lines of metrics.jsonl."""
    ends = stage_ends(lines)
    return [(ends[line["stage"] - 1] + line["step"], log_values(line)) for line in lines]


def success_points(evaluation: dict, lines: Sequence[dict]) -> Points:
    """Return the success after every stage, at its end: of all tasks, and of the tasks of each stage."""
    ends, points = stage_ends(lines), []
    for i, row in enumerate(evaluation["matrix"], 1):
        known = {f"success/stage_{k}": x for k, x in enumerate(row, 1) if x is not None}
        rates = [task["success_rate"] for task in evaluation["stages"][i - 1]["tasks"]]
        points.append((ends.get(i, max(ends.values())), {"success/mean": sum(rates) / len(rates), **known}))
    metrics = {f"metrics/{name}": x for name, x in evaluation["metrics"].items() if x is not None and name != "variant"}
    points[-1][1].update(metrics)
    return points


def drift_points(entries: Sequence[dict], lines: Sequence[dict]) -> Points:
    """Return the mean drift of the earlier tasks after every stage, by modality."""
    ends, points = stage_ends(lines), []
    for stage in sorted({entry["stage"] for entry in entries}):
        own = [{"policy_kl": x["policy_kl"], **x["relative"]} for x in entries if x["stage"] == stage]
        means = {f"drift/{name}": sum(x[name] for x in own) / len(own) for name in own[0]}
        points.append((ends.get(stage, max(ends.values())), means))
    return points
