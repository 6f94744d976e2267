"""Workers on the nodes of a Ray cluster (extra `cluster`): one actor per worker, and Ray's own resources.

Ray places the actors, detects lost nodes and carries jobs and results; the queue and its rules are those of
executor.py, as for processes of this machine. All files are in the shared folder.
"""

import logging
import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import Any

from m2distill_policy.errors import UserError
from m2distill_training.execution.attempt import THREAD_VARIABLES, attempt, use_folder
from m2distill_training.execution.executor import Backend, Worker
from m2distill_training.execution.jobs import Job, Reply, Resources
from m2distill_training.execution.nodes import NodeCheck

FORWARDED = ("MUJOCO_GL", "M2DISTILL_ASSETS")  # from the driver, if set there
CHECK_S = 180.0  # for all nodes: the first import of torch from a network file system is slow


class RayBackend(Backend):
    """Nodes of a Ray cluster."""

    def __init__(self, address: str, check: NodeCheck, workers: int | None = None):
        """Connect to a cluster and check its nodes.

        Args:
            address: "auto" for the cluster that this machine belongs to, or HOST:PORT of its head.
            check: what every node must satisfy.
            workers: CPUs that are used at most; None: all.

        Raises:
            UserError: there is no such cluster, or a node does not pass.
        """
        self._ray, self._check, self._workers = connect(address), check, workers
        self._actor_class = self._ray.remote(_Actor)
        self._live: list[RayWorker] = []
        self._checked: set[str] = set()
        try:
            self._check_nodes()
        except BaseException:
            self.close()
            raise

    def capacity(self, gpus: bool) -> Resources:
        self._check_nodes()
        found = self._ray.cluster_resources()
        cpus = int(found.get("CPU", 0))
        return Resources(cpus if self._workers is None else min(cpus, self._workers), found.get("GPU", 0.0))

    def start(self, resources: Resources) -> "RayWorker":
        self._live = [worker for worker in self._live if worker.is_live]
        worker = RayWorker(self._ray, self._actor_class, resources)
        self._live.append(worker)
        return worker

    def wait(self, workers: Sequence[Worker], timeout_s: float | None) -> list[Worker]:
        tasks = {worker.task: worker for worker in workers if isinstance(worker, RayWorker)}
        ready, _ = self._ray.wait(list(tasks), num_returns=1, timeout=timeout_s)
        return [tasks[task] for task in ready]

    def close(self) -> None:
        for worker in self._live:
            worker.end()
        self._ray.shutdown()

    def _check_nodes(self) -> None:
        """Check the nodes that have joined since the last call. Raises UserError for the first that does not pass."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        new = [node for node in nodes if node not in self._checked]
        options = {
            node: {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, False)}
            for node in new
        }
        function = self._ray.remote(_problem)
        tasks = {node: function.options(**options[node]).remote(self._check) for node in new}
        for node, task in tasks.items():
            name = nodes[node].get("NodeManagerHostname", node)
            try:
                problem = self._ray.get(task, timeout=CHECK_S)
            except self._ray.exceptions.GetTimeoutError:
                problem = f"node {name} has not answered in {CHECK_S:.0f} s; remove it from the cluster"
            except self._ray.exceptions.RayError as error:
                if not self._is_alive(node):  # it has left meanwhile
                    continue
                reason = str(error).strip().splitlines()[-1]
                problem = f"node {name} cannot work ({reason:.200}); install m2distill there, in the same version"
            if problem:
                raise UserError(problem)
            self._checked.add(node)

    def _is_alive(self, node: str) -> bool:
        return any(each["Alive"] for each in self._ray.nodes() if each["NodeID"] == node)


class RayWorker(Worker):
    """One actor."""

    def __init__(self, ray: Any, actor_class: Any, resources: Resources):
        self.resources, self.is_live = resources, True
        self._ray = ray
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": 0}
        self._actor = actor_class.options(**options).remote(os.getcwd(), [path for path in sys.path if path])
        self._place_task = self._actor.place.remote()
        self._place: tuple[str, str] | None = None
        self.task: Any = None

    @property
    def where(self) -> str:
        """Return host and process; "waiting for a node" while there is no room."""
        self._find_place()
        return self._place[0] if self._place else "waiting for a node"

    def begin(self, job: Job) -> None:
        self.task = self._actor.attempt.remote(job)

    def reply(self) -> Reply:
        self._find_place()
        try:
            return self._ray.get(self.task)
        except self._ray.exceptions.RayError as error:
            where = self._place[0] if self._place else "a node"
            if self._place and not self._node_is_alive(self._place[1]):
                return Reply("node_lost", UserError(f"the node of {where} was lost"))
            reason = str(error).strip().splitlines()[-1]
            return Reply("lost", UserError(f"a worker on {where} was lost, perhaps for lack of memory: {reason:.200}"))

    def end(self) -> None:
        if self.is_live:
            self.is_live = False
            self._ray.kill(self._actor)

    def _find_place(self) -> None:
        if self._place is None and self._ray.wait([self._place_task], timeout=0)[0]:
            try:
                self._place = self._ray.get(self._place_task)
            except self._ray.exceptions.RayError:
                return  # it has died; `reply` reports that

    def _node_is_alive(self, node: str) -> bool:
        return any(each["Alive"] for each in self._ray.nodes() if each["NodeID"] == node)


class _Actor:
    """The worker's side, on a node."""

    def __init__(self, folder: str, paths: list[str]):
        use_folder(folder, paths)

    def place(self) -> tuple[str, str]:
        """Return the place for messages, and the node's id."""
        import ray

        return f"{os.uname().nodename} process {os.getpid()}", ray.get_runtime_context().get_node_id()

    def attempt(self, job: Job) -> Reply:
        return attempt(job)


def _problem(check: NodeCheck) -> str:
    return check.problem()


def connect(address: str) -> Any:
    """Connect to a Ray cluster and return the module `ray`. Raises UserError."""
    if address != "auto" and not re.fullmatch(r"[\w.-]+:\d+", address):
        raise UserError(f"--cluster is {address!r}, expected auto or HOST:PORT of the cluster's head")
    try:
        import ray
    except ImportError:
        raise UserError("--cluster needs Ray, which is not installed; pip install 'm2distill[cluster]'") from None
    if ray.is_initialized():
        raise UserError("this process is connected to a Ray cluster already; call ray.shutdown() first")
    start_one = "start one with `ray start --head`, see docs/cluster.md"
    if address != "auto":  # Ray itself would try for minutes
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UserError(f"no Ray cluster at {address} ({error}); {start_one}") from None
    variables = THREAD_VARIABLES | {name: os.environ[name] for name in FORWARDED if name in os.environ}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            configure_logging=True,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
    except Exception as error:  # ConnectionError, RuntimeError, TimeoutError ..., by version and cause
        reason = " ".join(str(error).split())
        raise UserError(f"no Ray cluster at {address} ({reason:.160}); {start_one}") from None
    return ray
