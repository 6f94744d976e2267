"""One open page: what was sent to its browser and what waits to be sent. Its memory is bounded, however slow it is."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping

from starlette.websockets import WebSocket

MAX_TEXTS = 50  # answers that wait


class PageConnection:
    """Sender of sections, answers and images to one browser. All methods run in the server's loop."""

    def __init__(self, socket: WebSocket):
        self._socket = socket
        self._sent: dict[str, str] = {}  # sections as the browser has them
        self._sections: Mapping[str, str] = {}
        self._texts: deque[str] = deque(maxlen=MAX_TEXTS)
        self._frames: dict[str, bytes] = {}  # the newest image of each camera that waits
        self._wake = asyncio.Event()
        self.visible = True

    def update(self, sections: Mapping[str, str]) -> None:
        """Send the sections (JSON by name) that the browser does not have."""
        self._sections = sections
        self._wake.set()

    def answer(self, message: dict) -> None:
        self._texts.append(json.dumps(message))
        self._wake.set()

    def show(self, topic: str, frame: bytes) -> None:
        """Send an image, in place of an older one of this camera that still waits."""
        if self.visible:
            self._frames[topic] = frame
            self._wake.set()

    async def send_forever(self) -> None:
        """Send what there is, texts first. Ends with the exception of the socket when it is closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._texts:
                await self._socket.send_text(self._texts.popleft())
            changed = {name: text for name, text in self._sections.items() if self._sent.get(name) != text}
            if changed:
                self._sent |= changed
                await self._socket.send_text(
                    "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in changed.items()) + "}"
                )
            while self._frames and not self._texts:
                await self._socket.send_bytes(self._frames.pop(next(iter(self._frames))))
