"""Who may use the dashboard: the real web server, with a backend that only counts."""

import asyncio
import json
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from dashboard_server import Counted, serving
from rclpy.parameter import Parameter
from websockets.exceptions import ConnectionClosed, InvalidStatus

from m2distill_policy.errors import UserError
from m2distill_policy.ros.dashboard.access import COOKIE, Access, access_rules
from m2distill_policy.ros.dashboard.cameras import Camera, camera_name, encode
from m2distill_policy.ros.dashboard.page_connection import PageConnection
from m2distill_policy.ros.dashboard.server import MAX_MESSAGE, MAX_PAGES
from m2distill_policy.ros.nodes.dashboard_node import DashboardNode

TOKEN = "t" * 32
ORIGIN = "http://robot.lan:8770"


@pytest.fixture(scope="module")
def local() -> Iterator[Counted]:
    with serving(Access()) as counted:
        yield counted


@pytest.fixture(scope="module")
def remote() -> Iterator[Counted]:
    with serving(Access((ORIGIN,), TOKEN)) as counted:
        yield counted


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "OWN"}, 202),
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 202),  # a forwarded port
        ({"Host": "[::1]:9000", "Origin": "http://[::1]:9000"}, 202),
        ({}, 403),  # no browser
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),  # another program of this computer
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Host": "[", "Origin": "http://["}, 403),
        ({"Host": None, "Origin": "OWN"}, 400),
    ],
)
def test_a_stop_is_accepted_from_the_page_alone(local, headers, status):
    before = local.stops
    headers = {name: f"http://{local.own}" if value == "OWN" else value for name, value in headers.items()}
    assert local.request("POST", "/stop", headers).status == status
    assert local.stops - before == (status == 202)


@pytest.mark.parametrize("path", ["/", "/page.js", "/film/x"])
def test_another_host_name_gets_nothing(local, path):
    answer = local.request("GET", path, {"Host": "evil.example"})
    assert (answer.status, b"m2distill</title>" in answer.read()) == (403, False)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_a_websocket_of_another_site_is_rejected(local, origin):
    with pytest.raises(InvalidStatus, match="403"), local.socket(origin=origin):
        pass


def test_every_answer_forbids_foreign_scripts_and_frames(local):
    for path, status in (("/", 200), ("/page.js", 200), ("/nothing", 404), ("/film/x", 404), ("/../setup.py", 404)):
        answer = local.request("GET", path, {})
        policy = answer.headers["Content-Security-Policy"]
        assert answer.status == status
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and answer.headers["X-Content-Type-Options"] == "nosniff"


def test_another_computer_needs_the_token(remote):
    headers = {"Host": "robot.lan:8770", "Origin": ORIGIN}
    assert remote.request("GET", "/", headers).headers["Location"] == "/login"
    assert remote.request("POST", "/stop", headers).status == 401
    assert remote.request("POST", "/login", headers, "wrong").status == 401
    assert remote.request("POST", "/login", headers | {"Origin": "http://evil.example"}, TOKEN).status == 403
    assert remote.request("POST", "/login", headers, "x" * (MAX_MESSAGE + 1)).status == 413
    with pytest.raises(InvalidStatus, match="403"), remote.socket():
        pass
    answer = remote.request("POST", "/login", headers, TOKEN + "\n")
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 204 and "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and TOKEN not in cookie
    known = {"Cookie": cookie.partition(";")[0]}
    assert remote.request("POST", "/stop", headers | known).status == 202
    assert remote.request("GET", "/session", {"Cookie": f"{COOKIE}=x; a"}).status == 401
    with remote.socket(additional_headers=known) as socket:
        assert "now" in json.loads(socket.recv(timeout=5)) or "now" in json.loads(socket.recv(timeout=5))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
def test_a_browser_asks_for_the_token_once(remote, tmp_path):
    with Browser(tmp_path) as browser:
        tab = browser.tab()
        tab.open(f"http://{remote.own}")
        tab.until("location.pathname === '/login' && document.activeElement.id === 'token'", "the form")
        for text, wanted in (("wrong", "#problem"), (TOKEN, "#stop")):
            tab.js("document.getElementById('token').value = ''")
            tab.type(text)
            tab.key("Enter")
            tab.until(f"!!document.querySelector('{wanted}')?.innerText", wanted)
        tab.until("state.now === 1", "the page's data")
        tab.open(f"http://{remote.own}")
        tab.until("location.pathname === '/' && state.now === 1", "the page without a question")
        assert tab.js("document.cookie") == ""


def test_a_stop_does_not_wait_for_other_orders_or_for_a_page_that_reads_nothing(local):
    with local.socket() as socket, local.socket(max_queue=1, close_timeout=0.1) as idle:
        for _ in range(20):
            socket.send(json.dumps({"order": "slow", "text": "", "id": 1}))
        frame = bytes(500_000)
        for _ in range(50):
            local.server.show("/a/image_raw", frame)
        before, begun_s = local.stops, time.monotonic()
        idle.send(json.dumps({"order": "stop", "text": "", "id": 2}))
        while local.stops == before:
            assert time.monotonic() - begun_s < 1.0
            time.sleep(0.001)


@pytest.mark.parametrize(
    "message", ["{", "[]", '"stop"', '{"order": 1, "text": ""}', '{"order": "stop"}', "x" * 20_000]
)
def test_a_message_that_is_no_order_does_nothing(local, message):
    before = local.stops, list(local.orders)
    with local.socket() as socket:
        socket.send(message)
        try:
            while "unknown message" not in socket.recv(timeout=5):
                pass
        except ConnectionClosed:
            pass
    assert (local.stops, local.orders) == before
    assert local.request("GET", "/session", {}).status == 204


def test_the_number_of_pages_is_limited(local):
    sockets = [local.socket() for _ in range(MAX_PAGES)]
    for socket in sockets:
        socket.recv(timeout=5)
    with local.socket() as another, pytest.raises(ConnectionClosed, match="1013"):
        another.recv(timeout=5)
    for socket in sockets:
        socket.close()


def test_a_slow_browser_gets_the_newest_image_and_state_alone():
    sent: list = []
    gate = asyncio.Event()

    class Socket:
        async def send_text(self, text: str) -> None:
            await gate.wait()
            sent.append(json.loads(text))

        send_bytes = send_text

    async def run() -> None:
        page = PageConnection(Socket())
        sender = asyncio.create_task(page.send_forever())
        for number in range(1000):
            page.update({"now": str(number)})
            page.show("a", str(number))
            page.answer({"log": number})
            await asyncio.sleep(0)
        gate.set()
        while {"now": 999} not in sent or 999 not in sent:
            await asyncio.sleep(0)
        sender.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert len(sent) < 60 and sum(isinstance(message, int) for message in sent) <= 2


# --- start


def test_other_computers_are_let_in_only_with_a_token_and_an_origin(tmp_path):
    for host, origin, token_file in (("0.0.0.0", "", ""), ("192.168.1.5", ORIGIN, ""), ("::", "", "t"), ("", "", "")):
        with pytest.raises(UserError, match="set both: --origin"):
            access_rules(host, origin, token_file and str(tmp_path / token_file))
    with pytest.raises(UserError, match="expected http://NAME:PORT"):
        access_rules("0.0.0.0", f"{ORIGIN}/", str(tmp_path / "token"))
    assert access_rules("::1", "", "") == Access()
    path = tmp_path / "new" / "token"
    rules = access_rules("0.0.0.0", ORIGIN, str(path))
    assert path.stat().st_mode & 0o777 == 0o600 and len(rules.token) >= 40
    assert access_rules("0.0.0.0", ORIGIN, str(path)) == rules
    path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        access_rules("0.0.0.0", ORIGIN, str(path))
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(UserError, match="5 characters, required are 20"):
        access_rules("0.0.0.0", ORIGIN, str(path))


def test_a_port_in_use_is_reported_in_one_line(local, make_node):
    node = make_node(DashboardNode)
    node._settings = node._settings.__class__(port=local.server.port)
    with pytest.raises(UserError, match=f"port {local.server.port} .*choose another --port"):
        node.start()
    assert not node.set_parameters([Parameter("host", value="0.0.0.0")])[0].successful  # not on a running node


# --- images


def test_a_large_image_is_scaled_down_and_cameras_are_named():
    large, small = np.zeros((2160, 3840, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
    assert len(encode(large, 480)) < 5000
    shapes = [cv2.imdecode(np.frombuffer(encode(i, 480), np.uint8), 1).shape for i in (large, small)]
    assert shapes == [(270, 480, 3), (64, 64, 3)]
    camera = Camera("big", "/big", None)
    camera.received_s, camera.due_s = 100.0, 110.0  # a large image, after which the next one is taken late
    assert [camera.describe(at_s)["silent"] for at_s in (109.0, 111.0, 112.5)] == [False, False, True]
    topics = ("/wrist/image_raw", "/left/wrist/image_raw/compressed", "/camera/color")
    assert [camera_name(topic) for topic in topics] == ["wrist", "wrist", "color"]
