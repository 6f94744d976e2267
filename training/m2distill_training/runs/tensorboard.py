"""TensorBoard events: a view of metrics.jsonl for those who watch a run with TensorBoard. The lines are what counts.

Written with tensorboardX's record writer and not its SummaryWriter: that one hands events to a thread, which a full
disk ends silently, and a later event then waits forever.
"""

import shutil
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


class ScalarEvents:
    """The events of one folder, begun anew: what was there goes, so a resumed run never shows a step twice."""

    def __init__(self, folder: Path):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._writer = EventsWriter(str(folder / "events"))

    def write(self, step: int, values: dict[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=name, simple_value=x) for name, x in values.items()])
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
