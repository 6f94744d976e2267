"""TensorBoard events: the content of metrics.jsonl, which remains the record, for TensorBoard.

They are written with tensorboardX's record writer. Its SummaryWriter uses a thread that ends silently on a full disk,
after which the next event waits forever.
"""

import shutil
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary


class ScalarEvents:
    """Writer of one folder's events. It removes earlier ones, so that a resumed run shows each step once."""

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
