"""Learning steps of the dashboard: the commands that it starts, without ROS and without a browser."""

import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from pathlib import Path

import pytest
from dashboard_server import serving

from m2distill_policy.errors import UserError
from m2distill_policy.ros.dashboard import jobs as jobs_module
from m2distill_policy.ros.dashboard.access import Access
from m2distill_policy.ros.dashboard.episodes import EpisodeFolder
from m2distill_policy.ros.dashboard.jobs import JobRunner
from m2distill_policy.spec import libero_spec
from m2distill_training.data.rosbag.bag_import import import_bags
from m2distill_training.engine.train import train
from m2distill_training.presets import debug

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from bag_writer import INSTRUCTION, write_bag

SPEC = libero_spec(64, text_encoder="none", text_width=8)
NEW = "wave"


def labels(instruction: str, success: str = "true") -> dict[str, str]:
    return {
        "instruction": instruction,
        "success": success,
        "operator": "Ada",
        "spec": SPEC.to_json(),
        "arm": "libero_sim",
    }


def without_instruction(events: list) -> list:
    """Return the messages of a robot without those of the topic, which name the other task."""
    return [event for event in events if event[0] != "/instruction"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A run that has learned one task, and episodes of it and of another one."""
    folder = tmp_path_factory.mktemp("lab")
    old = [write_bag(folder / "episodes" / f"old_{i}", labels=labels(INSTRUCTION)) for i in range(2)]
    for i in range(2):
        write_bag(folder / "episodes" / f"new_{i}", labels=labels(NEW), change=without_instruction)
    write_bag(folder / "episodes" / "failed", labels=labels(NEW, "false"))
    import_bags(old, folder / "demos")
    config = debug()
    config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, held_out_demos=1))
    train(config, list((folder / "demos").glob("*.hdf5")), folder / "run")
    return folder


def runner(lab: Path, is_moving=lambda: False) -> JobRunner:
    episodes = EpisodeFolder(str(lab / "episodes"))
    episodes.scan()
    jobs = JobRunner(str(lab / "run"), episodes, is_moving)
    jobs.scan()
    return jobs


def do(jobs: JobRunner, job: str, text: str = "") -> str:
    return asyncio.run(jobs.start(job, text))


def test_a_new_task_is_imported_shown_and_learned_by_the_commands_of_the_page(lab, monkeypatch):
    monkeypatch.setattr(jobs_module, "NICENESS", "0")  # other tests may occupy every core
    jobs = runner(lab)
    assert jobs.section["problem"] == "" and jobs.section["tasks"] == [INSTRUCTION] and jobs.section["set"] == ""
    assert do(jobs, "import", NEW) == "2 of 2 episodes imported, 0 dropped"  # not the failure, nor the other task
    folder, _, file = jobs.section["set"].partition("/")
    assert file == "wave_demo.hdf5"
    assert " of 2 episodes are flagged" in do(jobs, "look")
    (page,) = jobs.section["pages"]
    text = jobs.review(folder, page).read_text()
    assert NEW in text and text.count("<video") == 2
    assert "--again" not in jobs._arguments("learn", "1")
    assert do(jobs, "learn", "1").startswith("learned: ")
    assert jobs._arguments("learn", "1")[-1] == "--again"  # in place of a stage that promotion rejected
    assert jobs.section["tasks"] == [INSTRUCTION, NEW] and jobs.section["running"] == ""
    with pytest.raises(UserError, match="no promotion"):
        do(jobs, "rollback_run")


@pytest.mark.parametrize(
    ("job", "text", "wording"),
    [
        ("import", "fly", "no successful episode of 'fly' is kept"),
        ("import", "", "no successful episode of ''"),
        ("learn", "-1", "held out is '-1', expected a whole number from 0 to 1000"),
        ("learn", "1 --strategy finetune", "expected a whole number"),
        ("promote", "20 --force", "episodes is '20 --force', expected a whole number from 1 to 950"),
        ("promote", "\u0662", "expected a whole number"),
    ],
)
def test_a_text_that_is_no_choice_of_the_page_starts_nothing(lab, job, text, wording):
    (lab / "episodes/demos/20000101_000000_x").mkdir(parents=True, exist_ok=True)
    (lab / "episodes/demos/20000101_000000_x/x_demo.hdf5").touch()
    jobs = runner(lab)
    with pytest.raises(UserError, match=wording):
        do(jobs, job, text)
    assert jobs.section["lines"] == []


def test_a_step_that_is_cancelled_is_called_so_however_it_ends(lab, monkeypatch, tmp_path):
    command = tmp_path / "python"
    command.write_text("#!/bin/sh\ntrap 'exit 1' INT\necho begun\nwhile :; do sleep 0.05; done\n")
    command.chmod(0o755)
    monkeypatch.setattr(jobs_module.sys, "executable", str(command))

    async def cancelled() -> str:
        jobs = runner(lab)
        step = asyncio.create_task(jobs.start("import", NEW))
        while not jobs.section["lines"]:
            await asyncio.sleep(0.01)
        jobs.cancel()
        await step

    with pytest.raises(UserError, match="import was cancelled; the same step continues it"):
        asyncio.run(cancelled())


def test_learning_waits_for_a_policy_at_rest_and_one_step_runs_at_a_time(lab):
    with pytest.raises(UserError, match="the policy moves the arm; stop it before promote"):
        do(runner(lab, lambda: True), "promote", "2")
    for run, episodes in (("", str(lab)), (str(lab / "run"), "")):
        with pytest.raises(UserError, match="Start the dashboard with --run and --episodes"):
            do(JobRunner(run, EpisodeFolder(episodes), lambda: False), "look")

    async def two() -> str:
        jobs = runner(lab)
        first = asyncio.create_task(jobs.start("import", NEW))
        while not jobs.section["running"]:
            await asyncio.sleep(0.01)
        with pytest.raises(UserError, match="import is running; wait for its end, or cancel it"):
            await jobs.start("look", "")
        pid = jobs._process.pid
        lowest = os.getpriority(os.PRIO_PROCESS, 0) + 5
        deadline_s = time.monotonic() + 5
        while os.getpriority(os.PRIO_PROCESS, pid) < lowest:  # until `nice` has started it
            assert time.monotonic() < deadline_s and not first.done()
            await asyncio.sleep(0.01)
        while not first.done():  # an import of Python may swallow the first interrupt
            with contextlib.suppress(UserError):
                jobs.cancel()
            await asyncio.sleep(0.5)
        with pytest.raises(UserError, match="import was cancelled; the same step continues it"):
            await first
        with pytest.raises(UserError, match="no step is running"):
            jobs.cancel()
        again = asyncio.create_task(jobs.start("import", NEW))
        while not jobs.section["running"]:
            await asyncio.sleep(0.01)
        begun_s, pid = time.monotonic(), jobs._process.pid
        await jobs.end()  # of the dashboard
        with contextlib.suppress(UserError):  # it may just have been done
            await again
        assert time.monotonic() - begun_s < 5
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    asyncio.run(two())


@pytest.mark.parametrize(
    ("folder", "name"),
    [("..", "x.html"), (".", "x.html"), ("20000101_000000_x", "../x.html"), ("20000101_000000_x", "x.hdf5"), ("", "")],
)
def test_no_other_file_is_served_as_a_page_of_a_set(lab, folder, name):
    (lab / "x.html").touch()
    (lab / "episodes/demos/x.html").parent.mkdir(parents=True, exist_ok=True)
    (lab / "episodes/demos/x.html").touch()
    with pytest.raises(UserError):
        runner(lab).review(folder, name)


def test_the_page_of_a_set_has_an_origin_of_its_own_and_cannot_order(tmp_path):
    page = tmp_path / "set.html"
    page.write_text("<script>1</script>")
    with serving(Access(), review=lambda folder, name: page) as counted:
        answer = counted.request("GET", "/review/a/set.html", {})
        policy = answer.headers["Content-Security-Policy"]
        assert answer.status == 200 and policy.startswith("sandbox allow-scripts allow-downloads;")
        assert "allow-same-origin" not in policy and "default-src 'none'" in policy and "connect-src" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        before = counted.stops
        assert counted.request("POST", "/stop", {"Origin": "null"}).status == 403 and counted.stops == before
