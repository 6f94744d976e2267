"""Headless Chromium for tests, driven over its DevTools protocol by a websocket."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LIMIT_S = 20.0
KEYS = {"Escape": 27, "Tab": 9, "Enter": 13, " ": 32}


class Tab:
    """One page of the browser. Every address that it requests is in `requests`, and errors of scripts in `errors`."""

    def __init__(self, address: str):
        self._socket = connect(address, max_size=None, compression=None)
        self._number = 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters) -> dict:
        """Send a command of the protocol and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=LIMIT_S))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._on_event(message)

    def _on_event(self, message: dict) -> None:
        parameters = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            self.requests.append(parameters["url"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:500])
        elif message["method"] == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.until("document.readyState === 'complete'", "the page")

    def js(self, expression: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def until(self, expression: str, what: str, limit_s: float = LIMIT_S) -> Any:
        """Wait until an expression is true and return its value."""
        return wait_for(lambda: self.js(expression), lambda: f"{what}; the page shows {self.text('body')}", limit_s)

    def text(self, selector: str) -> str:
        return self.js(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse, which must lie on top there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{found}.scrollIntoView({{block: 'center'}})")
        box = self.js(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({found}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def key(self, name: str) -> None:
        text = {"Enter": "\r", " ": " "}.get(name, "")
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code={" ": "Space"}.get(name, name),
                windowsVirtualKeyCode=KEYS[name],
                **({"text": text} if text and kind == "keyDown" else {}),
            )

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def to_front(self) -> None:
        """Make the page visible, in place of that of another tab."""
        self.send("Page.bringToFront")

    def close(self) -> None:
        self.send("Page.close")
        self._socket.close()


class Browser:
    """A Chromium process. A context manager."""

    def __init__(self, folder: Path, niceness: int = 0):
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [
                *(("nice", "-n", str(niceness)) if niceness else ()),
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--no-first-run",
                f"--user-data-dir={folder}",
                "--remote-debugging-port=0",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = folder / "DevToolsActivePort"
        wait_for(lambda: port_file.exists() and port_file.read_text().strip(), lambda: "Chromium")
        self._port = int(port_file.read_text().split()[0])

    def tab(self) -> Tab:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return Tab(json.load(answer)["webSocketDebuggerUrl"])

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *exception) -> None:
        self._process.kill()
        self._process.wait(LIMIT_S)


def wait_for(happened: Callable[[], Any], what: Callable[[], str], limit_s: float = LIMIT_S) -> Any:
    """Wait until `happened()` is true and return what it returned."""
    until_s = time.monotonic() + limit_s
    while not (result := happened()):
        assert time.monotonic() < until_s, f"waited {limit_s:g} s for {what()}"
        time.sleep(0.02)
    return result
