"""A graph of activities, each of which becomes jobs when those before it have ended."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from m2distill_training.execution.executor import Executor
from m2distill_training.execution.jobs import Job, Outcome

LOOK_S = 1.0  # between looks at `stop`, and calls of `on_look`


class Activity(ABC):
    """A part of the work: one job, or several that are only known one after the other.

    Attributes:
        name: unique in its graph, and the beginning of the names of its jobs.
        after: the activities that must have ended before.
        kind: activities of one kind take about the same time per unit.
        units: size of the work, for the estimate of the time that is left.
        done: how much of it is done.
        seconds: that workers have spent on it.
        ended: `finish` has been called.
        error: why it cannot end; activities after it do not begin.
    """

    def __init__(self, name: str, after: Sequence["Activity"] = (), units: float = 1, kind: str = ""):
        self.name, self.after, self.units, self.kind = name, tuple(after), units, kind
        self.done = self.seconds = 0.0
        self.ended = False
        self.error: Exception | None = None

    @abstractmethod
    def jobs(self) -> list[Job]:
        """Return the jobs that can begin now. Called at the start and when all earlier ones have ended; [] ends it."""

    def take(self, outcome: Outcome) -> None:  # noqa: B027
        """Receive the outcome of a job that has succeeded."""

    def finish(self) -> None:  # noqa: B027
        """Do what is left, in this process."""

    def progress(self) -> float:
        """Return how much is done, with what a job at work has done so far."""
        return self.done

    @property
    def is_ready(self) -> bool:
        return all(activity.ended for activity in self.after)

    @property
    def is_over(self) -> bool:
        """Return True if it has ended or never will."""
        return self.ended or self.error is not None or any(each.is_over and not each.ended for each in self.after)


def run_graph(
    executor: Executor,
    activities: Sequence[Activity],
    *,
    keep_going: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_look: Callable[[], None] = lambda: None,
) -> bool:
    """Run all activities; return False if `stop` ended it before.

    Args:
        executor: where the jobs run.
        activities: in an order in which each comes after those in its `after`.
        keep_going: after an error, finish what does not depend on the activity, and raise the error at the end.
        stop: looked at every second. When it returns True no further job begins; those at work run to their end.
        on_look: called every second and after every outcome.

    Raises:
        Exception: the first error of a job.
    """
    owners: dict[str, Activity] = {}  # by the name of the job
    while not all(activity.is_over for activity in activities):
        if stop():
            executor.cancel_waiting()
            running = executor.running()
            owners = {name: owner for name, owner in owners.items() if name in running}
            if not owners:
                on_look()
                return False
        else:
            _advance(executor, activities, owners)
        for outcome in executor.completed(LOOK_S):
            activity = owners.pop(outcome.job.name, None)
            if activity is None:  # of an activity with an error
                continue
            activity.seconds += outcome.seconds
            if outcome.error is None:
                activity.take(outcome)
                continue
            activity.error = outcome.error
            if not keep_going:
                raise outcome.error from None
            for name in [name for name, owner in owners.items() if owner is activity]:
                executor.cancel(name)
                del owners[name]
        on_look()
    for activity in activities:
        if activity.error is not None:
            raise activity.error from None
    return True


def _advance(executor: Executor, activities: Sequence[Activity], owners: dict[str, Activity]) -> None:
    """Submit what can begin, and finish the activities that have no further jobs."""
    for activity in activities:
        if activity.is_over or not activity.is_ready or activity in owners.values():
            continue
        jobs = activity.jobs()
        for job in jobs:
            executor.submit(job)
            owners[job.name] = activity
        if not jobs:
            activity.finish()
            activity.done, activity.ended = activity.units, True
