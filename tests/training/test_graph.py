"""Graphs of activities: order, errors of jobs and of activities, and the end at a stop."""

from pathlib import Path

import pytest

from m2distill_policy.errors import UserError
from m2distill_training.execution.executor import Executor, run_jobs
from m2distill_training.execution.graph import Activity, run_graph
from m2distill_training.execution.jobs import Job, Resources
from m2distill_training.execution.local import LocalBackend
from m2distill_training.execution.open import open_executor


def write(path: Path, text: str) -> None:
    path.write_text(text)


class Write(Activity):
    """One job that writes a file."""

    def __init__(self, path: Path, after=(), broken: str = ""):
        super().__init__(path.name, after)
        self.path, self.broken = path, broken

    def jobs(self) -> list[Job]:
        if self.broken == "jobs":
            raise UserError("no job can be made")
        return [] if self.path.exists() else [Job(self.name, write, (self.path, self.name))]

    def finish(self) -> None:
        if self.broken == "finish":
            raise UserError("it cannot be finished")


@pytest.mark.parametrize("broken", ["jobs", "finish"])
def test_an_activity_that_fails_stops_only_what_comes_after_it(broken, tmp_path):
    bad = Write(tmp_path / "bad", broken=broken)
    after, other = Write(tmp_path / "after", [bad]), Write(tmp_path / "other")
    last = Write(tmp_path / "last", [other])
    with open_executor(1, None, tmp_path) as executor, pytest.raises(UserError, match="no job|be finished"):
        run_graph(executor, [bad, after, other, last], keep_going=True)
    assert isinstance(bad.error, UserError)
    assert last.ended and (tmp_path / "last").read_text() == "last"
    assert not after.ended and not (tmp_path / "after").exists()


def test_without_keep_going_the_first_error_ends_the_graph(tmp_path):
    bad, other = Write(tmp_path / "bad", broken="jobs"), Write(tmp_path / "other")
    with open_executor(1, None, tmp_path) as executor, pytest.raises(UserError, match="no job can be made"):
        run_graph(executor, [bad, other])
    assert not other.ended


def test_a_job_takes_the_fullest_gpu_with_room_and_else_the_emptiest():
    class Live:
        def __init__(self, gpu: int, share: float):
            self.gpu, self.resources = gpu, type("R", (), {"gpus": share})

    backend = LocalBackend(4)
    backend._gpus, backend._live = 2, [Live(0, 0.9), Live(1, 0.6)]
    assert backend._free_gpu(0.1) == 0
    assert backend._free_gpu(0.3) == 1
    assert backend._free_gpu(0.5) == 1


class OutOfMemoryError(RuntimeError):
    """Error with the name of torch's, which a GPU without enough memory causes."""


def take_memory(folder: Path, attempts: int) -> int:
    """Fail that many times as on a full GPU; return the number of calls."""
    calls = len(list(folder.iterdir())) + 1
    (folder / str(calls)).touch()
    if calls <= attempts:
        raise OutOfMemoryError("CUDA out of memory")
    return calls


def test_a_job_without_enough_memory_on_its_gpu_gets_a_larger_share_and_alone_it_fails(tmp_path):
    import torch  # not above, because the workers import this module

    assert torch.OutOfMemoryError.__name__ == OutOfMemoryError.__name__
    backend = LocalBackend(1)
    backend._gpus = 1
    repeated = []
    with Executor(backend) as executor:
        executor.on_repeat = lambda job, reason: repeated.append((job.resources.gpus, reason))
        assert run_jobs(executor, [Job("train", take_memory, (tmp_path, 1), Resources(1, 0.5))]) == [2]
        said = "the GPU's memory did not suffice; fewer jobs run, it now takes 1 of a GPU"
        assert repeated == [(1.0, said)]
        with pytest.raises(RuntimeError, match="CUDA out of memory"):
            run_jobs(executor, [Job("large", take_memory, (tmp_path, 9), Resources(1, 1.0))])
    assert len(repeated) == 1
