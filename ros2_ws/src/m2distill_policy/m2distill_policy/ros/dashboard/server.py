"""Web server of the dashboard: the page, its websocket, and the stop. It runs on a thread of its own.

The robot is given by `Backend`, so nothing here uses ROS.
"""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from m2distill_policy.errors import UserError
from m2distill_policy.ros.dashboard.access import COOKIE, Access
from m2distill_policy.ros.dashboard.jobs import REVIEW_POLICY
from m2distill_policy.ros.dashboard.page_connection import PageConnection

STATIC = Path(__file__).parent / "static"
FILES = {path.name: path for path in STATIC.iterdir() if path.suffix in (".css", ".js", ".svg")}
UPDATE_PERIOD_S = 0.2
MAX_PAGES = 16
MAX_MESSAGE = 16_384  # bytes from a browser
MAX_LOG = 30  # answers that a new page receives
END_LIMIT_S = 5.0
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
OPEN_PATHS = ("/login", "/page.css", "/login.js", "/icon.svg")  # without the token


@dataclass(frozen=True)
class Backend:
    """What the server shows and does.

    Args:
        sections: Function that returns the page's data by section; called five times a second, so it must not wait.
        order: Coroutine that carries out an order, given its name and text, and returns the answer. Raises UserError.
        stop: Function that requests a stop and returns at once.
        film: Coroutine that returns the number of images and the JPEG of an episode's filmstrip. Raises UserError.
        review: Function that returns the path of a page about a set, given folder and name. Raises UserError.
        end: Coroutine that ends what the backend runs, when the server ends.
    """

    sections: Callable[[], Mapping[str, Any]]
    order: Callable[[str, str], Awaitable[str]]
    stop: Callable[[], None]
    film: Callable[[str], Awaitable[tuple[int, bytes]]]
    review: Callable[[str, str], Path]
    end: Callable[[], Awaitable[None]]


class Guard:
    """Middleware that checks Host, Origin and cookie of every request, and adds the headers of every response."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        headers = Headers(scope=scope)
        is_socket = scope["type"] == "websocket"
        changes = is_socket or scope["method"] not in ("GET", "HEAD")
        problem = self._access.problem(headers.get("host", ""), headers.get("origin"), changes)
        status = 403
        if not problem and scope["path"] not in OPEN_PATHS and not self._access.is_known(_cookie(headers)):
            problem, status = "no token; open / and enter it", 401

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    sent.setdefault(name, value)
            await send(message)

        if not problem:
            await self._app(scope, receive, send_with_headers)
        elif is_socket:
            await send({"type": "websocket.close", "code": 1008, "reason": problem[:100]})
        elif status == 401 and scope["path"] == "/":
            await RedirectResponse("/login", 303)(scope, receive, send_with_headers)
        else:
            await PlainTextResponse(f"rejected: {problem}\n", status)(scope, receive, send_with_headers)


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


class Server:
    """The web server, with all open pages.

    Args:
        backend: The robot.
        access: Who may use the page.
        host: Address to listen on.
        port: Port; 0 for a free one.

    Raises:
        UserError: The address cannot be used.
    """

    def __init__(self, backend: Backend, access: Access, host: str, port: int):
        self._backend, self._access = backend, access
        self._socket = _listen(host, port)
        self.port = self._socket.getsockname()[1]
        self._pages: set[PageConnection] = set()
        self._log: deque[dict] = deque(maxlen=MAX_LOG)
        self._number = 0
        self._tasks: set[asyncio.Task] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        routes = [
            Route("/", self._index),
            Route("/login", self._login, methods=["GET", "POST"]),
            Route("/session", lambda _: Response(status_code=204)),
            Route("/stop", self._stop, methods=["POST"]),
            Route("/film/{name}", self._film),
            Route("/review/{folder}/{name}", self._review),
            Route("/{name}", self._file),
            WebSocketRoute("/ws", self._serve_page),
        ]
        config = uvicorn.Config(
            Guard(Starlette(routes=routes), access),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=200,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    # --- from other threads

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(END_LIMIT_S)
        self._socket.close()

    @property
    def watched(self) -> bool:
        """Return whether a page is visible."""
        return any(page.visible for page in tuple(self._pages))

    def show(self, topic: str, frame: bytes) -> None:
        """Send an image to all pages; from any thread."""

        def show() -> None:
            for page in self._pages:
                page.show(topic, frame)

        self._call(show)

    def update(self) -> None:
        """Send what has changed now, not at the next period; from any thread."""
        if self._changed is not None:
            self._call(self._changed.set)

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function)

    # --- the server's thread

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        updates = asyncio.create_task(self._update_forever())
        await self._server.serve(sockets=[self._socket])
        updates.cancel()
        await self._backend.end()

    async def _update_forever(self) -> None:
        assert self._changed is not None  # _main made it
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), UPDATE_PERIOD_S)
            self._changed.clear()
            if self._pages:
                sections = {name: json.dumps(value) for name, value in self._backend.sections().items()}
                for page in self._pages:
                    page.update(sections)

    def _perform(self, page: PageConnection, order: Any) -> None:
        """Start an order of a page; its answer goes to all of them."""
        known = isinstance(order, dict) and {type(order.get(key)) for key in ("order", "text")} == {str}
        if not known:
            page.answer({"log": [{"ok": False, "text": "unknown message of the page; load it again", "time": 0}]})
        elif order["order"] == "stop":
            self._backend.stop()
        elif order["order"] == "visible":
            page.visible = order["text"] == "yes"
        else:
            task = asyncio.create_task(self._answer(order["order"], order["text"], order.get("id")))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, order: str, text: str, number: Any) -> None:
        try:
            answer, ok = await self._backend.order(order, text), True
        except UserError as error:
            answer, ok = str(error), False
        except Exception as error:  # of rclpy, for example while it shuts down
            answer, ok = f"{type(error).__name__}: {error}", False
        self._number += 1
        entry = {"order": order, "ok": ok, "text": answer, "time": time.time(), "number": self._number, "id": number}
        self._log.append(entry)
        for page in self._pages:
            page.answer({"log": [entry]})

    # --- requests

    async def _serve_page(self, websocket: WebSocket) -> None:
        await websocket.accept()
        if len(self._pages) >= MAX_PAGES:
            await websocket.close(1013, f"{MAX_PAGES} pages are open already")
            return
        page = PageConnection(websocket)
        page.answer({"log": [entry | {"id": None} for entry in self._log]})
        self._pages.add(page)
        self.update()
        sender = asyncio.create_task(page.send_forever())
        try:
            while True:
                self._perform(page, json.loads(await websocket.receive_text()))
        except (WebSocketDisconnect, ValueError, KeyError, RuntimeError):
            pass  # closed, or not a page of ours
        finally:
            self._pages.discard(page)
            sender.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await sender
            with contextlib.suppress(Exception):
                await websocket.close()

    async def _index(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _file(self, request: Request) -> Response:
        path = FILES.get(request.path_params["name"])
        return FileResponse(path) if path else PlainTextResponse("not found\n", 404)

    async def _stop(self, _: Request) -> Response:
        self._backend.stop()
        return Response(status_code=202)

    async def _film(self, request: Request) -> Response:
        try:
            count, strip = await self._backend.film(request.path_params["name"])
            return Response(strip, media_type="image/jpeg", headers={"X-Frames": str(count)})
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 404)

    async def _review(self, request: Request) -> Response:
        """Return the page of a set, with a policy under which it cannot reach the dashboard."""
        try:
            path = self._backend.review(request.path_params["folder"], request.path_params["name"])
            return FileResponse(path, headers={"Content-Security-Policy": REVIEW_POLICY})
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 404)

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return FileResponse(STATIC / "login.html")
        token = b""
        with contextlib.suppress(ClientDisconnect):
            async for part in request.stream():
                token += part
                if len(token) > MAX_MESSAGE:
                    return PlainTextResponse("too long\n", 413)
        if not self._access.token or not self._access.accepts(token.decode(errors="replace")):
            await asyncio.sleep(0.5)
            return PlainTextResponse("this is not the token\n", 401)
        response = Response(status_code=204)
        response.set_cookie(COOKIE, self._access.session, max_age=30 * 86400, httponly=True, samesite="strict")
        return response


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(100)
        return listener
    except OSError as error:
        raise UserError(
            f"the dashboard cannot listen on {host}, port {port} ({error.strerror}); choose another --port, or end the "
            "program that uses it"
        ) from None
