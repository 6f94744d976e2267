"""docs/teach.md from the page alone: record, look, learn, promote, follow; `make teach` runs it on a copy of a run.

M2DISTILL_LEARNED_RUN names the run, M2DISTILL_TEACH_STEPS the gradient steps if not those of the run, and
M2DISTILL_SCREENSHOTS a folder for screenshots.
"""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, Tab, wait_for
from dashboard_system import free_port
from test_teach import DEMOS, GIVEN, SUITE, copy_given

from m2distill_sim.suites import suites
from m2distill_training.cli import main

SCREENSHOTS = os.environ.get("M2DISTILL_SCREENSHOTS", "")
START_S, EPISODE_S, LEARN_S = 120.0, 240.0, 3600.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GIVEN, reason="M2DISTILL_LEARNED_RUN names no run; make teach does"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)"),
]


class Desk:
    """The system of `m2distill run` with a page open, and what the page does."""

    def __init__(self, tab: Tab, new: str, task: int):
        self.tab, self.new, self.task = tab, new, task

    def film(self, name: str, selector: str = "main") -> None:
        """Store a screenshot from the element on, if a folder is named."""
        if not SCREENSHOTS:
            return
        self.tab.js(f"document.querySelector('{selector}').scrollIntoView()")
        shot = self.tab.send("Page.captureScreenshot", format="jpeg", quality=70)
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        (Path(SCREENSHOTS) / f"{name}.jpg").write_bytes(base64.b64decode(shot["data"]))

    def answer(self, order: str, limit_s: float) -> str:
        """Wait for the newest answer to an order and return it."""
        entry = "document.querySelector('#log li span')"
        wait_for(lambda: (self.tab.js(f"{entry}?.innerText") or "").startswith(f"{order}: "), lambda: order, limit_s)
        text = self.tab.js(f"{entry}.innerText")
        assert not self.tab.js(f"{entry}.className"), text
        return text

    def fill(self, selector: str, value: object) -> None:
        self.tab.js(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(str(value))}")

    def press(self, selector: str, order: str, limit_s: float = START_S) -> str:
        self.click(selector)
        return self.answer(order, limit_s)

    def click(self, selector: str) -> None:
        """Press a button when it is enabled, with an empty list of answers."""
        button = f"document.querySelector({json.dumps(selector)})"
        self.tab.until(f"!{button}.disabled", selector)
        self.tab.js(f"document.getElementById('log').replaceChildren(); {button}.click()")

    def job(self, name: str, limit_s: float) -> str:
        return self.press(f"form[data-job={name}] button", name, limit_s)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Desk]:
    folder, port = tmp_path_factory.mktemp("desk"), free_port()
    run = folder / "run"
    known = copy_given(run)
    (task, *_) = [task for task in suites()[SUITE] if task.instruction not in known]
    if not (run / "current").exists():
        check = ["--assets", "builtin", "--episodes", "1", "--max-steps", "1", "--workers", "1", "--force"]
        assert main.run(["promote", "--run", str(run), *check]) == 0  # step 1 of docs/teach.md, without a real check
    words = {"checkpoint": run / "current", "record": folder / "episodes", "operator": "Ada", "task": task.index}
    words |= {"assets": "builtin", "pacing": "lockstep", "dashboard-port": port, "dashboard-run": run}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    command = [Path(sys.executable).with_name("m2distill"), "run", *options, "--follow-checkpoint", "--dashboard"]
    variables = {**os.environ, "M2DISTILL_ASSETS": "builtin"}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=variables, cwd=folder) as nodes,
    ):
        try:
            with Browser(folder / "browser", niceness=10) as browser:
                tab = browser.tab()
                tab.resize(1100, 900)
                address = f"http://127.0.0.1:{port}"
                wait_for(lambda: _opens(tab, address), (folder / "log").read_text, START_S)
                ready = "state.policy?.state && !document.getElementById('simulator').hidden && state.recorder"
                wait_for(lambda: tab.js(f"!!({ready})"), lambda: "the nodes", START_S)
                yield Desk(tab, task.instruction, task.index)
        finally:
            nodes.send_signal(signal.SIGINT)
            nodes.wait(60)


def _opens(tab: Tab, address: str) -> bool:
    tab.open(address)
    return tab.js("!!document.getElementById('stop')")


def test_a_third_task_is_taught_from_the_page_and_obeyed(desk):
    tab = desk.tab
    for number in range(DEMOS):
        for name, value in (("task", desk.task), ("initial_state", number), ("seed", number)):
            desk.fill(f"#reset [name={name}]", value)
        tab.js("document.querySelector('#reset [name=driver]').checked = true")
        desk.press("#reset button[value=reset_record]", "reset_record")
        wait_for(lambda: tab.js("state.simulator.operator_active"), lambda: "the expert", EPISODE_S)
        desk.fill("#label-text", desk.new)
        desk.press("#label button", "label")
        if number == 1:
            desk.film("teach_record", "#h-recording")
        wait_for(lambda: tab.js("!state.simulator.operator_active"), lambda: "the expert's end", EPISODE_S)
        assert tab.js("state.simulator.success")
        desk.press("[data-order=keep]", "keep")
    wait_for(lambda: desk.new in (tab.js("document.getElementById('import-text').value") or ""), lambda: "the count")
    assert f"{DEMOS} of {DEMOS} episodes imported" in desk.job("import", START_S)
    desk.job("look", START_S)
    tab.until("!!document.querySelector('#jobs-pages a')", "the link")
    page = tab.js("document.querySelector('#jobs-pages a').href")
    tab.open(page)
    assert tab.js("document.querySelectorAll('article video').length") == DEMOS
    desk.film("teach_look", "h1")
    tab.open(page.split("/review")[0])
    tab.until("!!state.jobs?.set", "the page")
    desk.fill("#learn-text", 0)
    desk.click("form[data-job=learn] button")
    wait_for(
        lambda: "training" in tab.text("#jobs-lines") or "it/s" in tab.text("#jobs-lines"), lambda: "progress", START_S
    )
    desk.film("teach_learn", "#h-learning")
    desk.answer("learn", LEARN_S)
    desk.fill("#promote-text", 10)
    print(desk.job("promote", LEARN_S))
    tab.until(f"state.policy.known.includes({json.dumps(desk.new)})", "the swap")
    follow(desk)


def follow(desk: Desk) -> None:
    """Let the policy do the new task in another scene, then stop it."""
    tab = desk.tab
    tab.until(f"document.querySelector('#reset [name=task]').value === '{desk.task}'", "the simulator's settings")
    tab.js("document.querySelector('#reset [name=driver]').checked = false")
    desk.fill("#reset [name=initial_state]", 40)
    desk.press("#reset button:not([value])", "reset_sim")
    desk.fill("#instruction", desk.new)
    desk.press("#instruct button", "instruct")
    tab.until("document.getElementById('state').innerText === 'running'", "the state")
    wait_for(lambda: tab.js("state.simulator.success"), lambda: "success", EPISODE_S)
    desk.film("teach_follow")
    tab.key("Escape")
    tab.until("document.querySelector('#stopped.ok')?.innerText.startsWith('stopped: /policy')", "the result")
