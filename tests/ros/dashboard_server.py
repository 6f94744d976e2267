"""The web server of the dashboard with a backend that only counts."""

import asyncio
import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

from m2distill_policy.errors import UserError
from m2distill_policy.ros.dashboard.access import Access
from m2distill_policy.ros.dashboard.server import Backend, Server


def no_review(folder: str, name: str) -> Path:
    raise UserError(f"no page {folder}/{name}")


class Counted:
    """A server with the orders and stops that reached its backend."""

    def __init__(self, access: Access, port: int = 0, review: Callable[[str, str], Path] = no_review):
        self.orders: list[tuple[str, str]] = []
        self.stops = 0
        self.shown: dict = {"now": 1}  # sections
        backend = Backend(lambda: self.shown, self._order, self._stop, self._film, review, self._end)
        self.server = Server(backend, access, "127.0.0.1", port)
        self.own = f"127.0.0.1:{self.server.port}"

    async def _order(self, name: str, text: str) -> str:
        self.orders.append((name, text))
        if name == "slow":
            await asyncio.sleep(30)
        return "done"

    def _stop(self) -> None:
        self.stops += 1

    async def _film(self, name: str) -> tuple[int, bytes]:
        raise UserError(f"no episode {name}")

    async def _end(self) -> None:
        pass

    def request(self, method: str, path: str, headers: dict, body: str = "") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": self.own} | headers).items():
            if value is not None:
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body.encode())
        return connection.getresponse()

    def socket(self, **options):
        return connect(f"ws://{self.own}/ws", **{"origin": f"http://{self.own}", **options})


@contextmanager
def serving(access: Access, **options) -> Iterator[Counted]:
    counted = Counted(access, **options)
    counted.server.start()
    try:
        yield counted
    finally:
        counted.server.end()
