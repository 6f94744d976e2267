"""Studies on real Ray nodes of the loopback, one of which is killed; and the checks of nodes."""

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import psutil
import pytest

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_sim.assets import find_assets
from m2distill_sim.probe import check_simulation
from m2distill_sim.suites import find_task
from m2distill_training.cli import main
from m2distill_training.execution.nodes import make_check, software
from m2distill_training.execution.open import open_executor
from m2distill_training.experiments.study import study
from m2distill_training.experiments.study_plan import make_plan
from m2distill_training.runs.records import read_json, read_lines
from m2distill_training.runs.run_folder import RunFolder

NO_EGL = "/nonexistent/egl_vendor.json"  # with this vendor file libEGL finds no driver
STORE = 80 << 20  # bytes of a node's object store


class Cluster:
    """Nodes that `ray start` begins, each in a session of its own."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._folder = tempfile.TemporaryDirectory(prefix="ray")  # sockets need a short path
        self._nodes: list[subprocess.Popen] = []

    def add(self, cpus: int, **environment: str) -> subprocess.Popen:
        head = ["--head", "--port", self.address.split(":")[1], "--include-dashboard", "false"]
        where = ["--address", self.address] if self._nodes else head
        variables = {"RAY_TMPDIR": self._folder.name, "RAY_USAGE_STATS_ENABLED": "0"}
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", *where]
        resources = ["--num-cpus", str(cpus), "--object-store-memory", str(STORE)]
        variables = os.environ | variables | environment
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        node = subprocess.Popen([*ray, *resources], env=variables, **output)
        self._nodes.append(node)
        for line in node.stdout:
            if "This command will now block" in line:
                break
        else:
            raise RuntimeError(f"ray start ended with status {node.wait()}")
        threading.Thread(target=node.stdout.read, daemon=True).start()
        return node

    def close(self) -> None:
        for node in reversed(self._nodes):
            node.terminate()
            node.wait(timeout=60)
        self._folder.cleanup()


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and two nodes with one each, of which a test kills one."""
    cluster = Cluster()
    try:
        for cpus in (0, 1, 1):
            cluster.add(cpus)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def plan(tmp_path_factory, write_libero):
    """One strategy on two tasks of noise, with trainings of a few seconds."""
    data = tmp_path_factory.mktemp("data")
    for index in range(2):
        task = find_task("libero_object", index)
        write_libero(data / f"{task.name}_demo.hdf5", task.instruction, demos=2, seed=index)
    values = {"strategies": ["er"], "seeds": [0], "preset": "debug", "episodes": 1, "max_steps": 2}
    suite = {"suite": "libero_object", "tasks": [0, 1], "data": str(data)}
    return make_plan({**values, "suites": [suite], "budget": "200 steps", "overrides": {"save_every": 20}}, "plan")


def kill_node_of(out: Path, stage: int, killed: list[int]) -> None:
    """Kill the node that trains a stage of er, with signal 9, after its first saved state."""
    while not (out / "runs/er-0/stages" / str(stage) / "state.pt").is_file():
        time.sleep(0.02)
    for process in psutil.process_iter(["cmdline"]):
        if "ray::_Actor.attempt" in " ".join(process.info["cmdline"] or []):
            files = [file.path for file in process.open_files()]
            if str(out / "runs/er-0/lock") in files:
                killed.append(process.ppid())
                os.kill(process.ppid(), signal.SIGKILL)  # the raylet: its node is lost, and its workers end


@pytest.mark.slow
@pytest.mark.sim
def test_a_study_with_a_killed_node_ends_like_the_one_of_this_machine(cluster, plan, tmp_path, capfd):
    local, spread, killed = tmp_path / "local", tmp_path / "spread", []
    assert study(local, plan, workers=2)
    killer = threading.Thread(target=kill_node_of, args=(spread, 2, killed), daemon=True)
    killer.start()
    assert study(spread, plan, cluster=cluster.address)
    assert len(killed) == 1
    for stage in (1, 2):
        a, b = (load_checkpoint(RunFolder(out / "runs/er-0").checkpoint(stage)) for out in (local, spread))
        assert a.id == b.id
    a, b = (read_json(out / "runs/er-0/evaluation.json") for out in (local, spread))
    a.pop("ran"), b.pop("ran")
    assert a == b
    lines = [
        [(line["stage"], line["step"], line["bc"]) for line in RunFolder(out / "runs/er-0").metrics()]
        for out in (local, spread)
    ]
    assert lines[0] == lines[1]
    assert not list(spread.glob(".shared-*"))  # the file of the check
    assert sorted(map(str, read_lines(local / "runs/er-0/episodes.jsonl"))) == sorted(
        map(str, read_lines(spread / "runs/er-0/episodes.jsonl"))
    )


@pytest.mark.slow
def test_a_node_without_a_renderer_is_named(cluster, tmp_path):
    cluster.add(1, __EGL_VENDOR_LIBRARY_FILENAMES=NO_EGL)
    with (
        pytest.raises(UserError, match=r"node .*: no offscreen renderer with MUJOCO_GL=egl.*install libegl1"),
        open_executor(None, cluster.address, tmp_path, functools.partial(check_simulation, {})),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_machine_that_cannot_do_the_work_is_named(tmp_path):
    check = make_check(tmp_path)
    assert check.problem() == ""
    elsewhere = replace(check, folder=tmp_path / "elsewhere", wait_s=0)
    assert f"does not see {tmp_path / 'elsewhere'}, which this command writes; give a folder" in elsewhere.problem()
    other = replace(check, expected=software() | {"torch": "1.0"})
    assert f"has torch {software()['torch']}, this machine has 1.0; install the same version" in other.problem()
    builtin = find_assets("builtin").identity()
    probe = functools.partial(check_simulation, {("libero_object", "builtin"): "builtin-other"})
    assert f"the assets are {builtin}, expected builtin-other" in replace(check, probe=probe).problem()


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("nowhere", "--cluster is 'nowhere', expected auto or HOST:PORT of the cluster's head"),
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1 .*start one with `ray start --head`, see docs/cluster.md"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint), open_executor(None, address, tmp_path):
        pass


def test_the_command_needs_an_existing_cluster(tmp_path, capsys):
    assert main.run(["collect", "--cluster", "here", "--out", str(tmp_path / "out")]) == 2
    assert "--cluster is 'here', expected auto or HOST:PORT" in capsys.readouterr().err
