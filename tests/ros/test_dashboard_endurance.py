"""Bad days of the dashboard: a page that is open over night, a new token, large and slow cameras."""

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest
from browser import CHROMIUM, Browser, wait_for
from dashboard_server import serving
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

from m2distill_policy.ros.common.conversions import image_from_numpy
from m2distill_policy.ros.dashboard.access import Access
from m2distill_policy.ros.dashboard.cameras import NEWEST, Camera, CameraThread, encode, frame

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
ORIGIN = "http://robot.lan:8770"
NIGHT = 1500  # states and images that change; a visible page receives 5 and 20 a second
LOADED = "location.pathname === '/' && typeof state !== 'undefined' && state.now === 1"
SPARE = 40_000  # bytes beside which the growth of the server's memory is judged
GROWTH = 1.3  # of nodes and of the memory, from the first third on


def camera(number: int) -> dict:
    return {"name": "a", "topic": "/a", "age_s": 0.1, "silent": False, "rate_hz": number, "size": "8x8", "problem": ""}


@needs_browser
def test_a_page_that_is_open_over_night_does_not_grow(tmp_path):
    """Neither does the server of the page, whose memory is that of this process."""
    source = Camera("a", "/a", None)
    images = [frame(source, encode(np.full((8, 8, 3), value, np.uint8), 480)) for value in (0, 255)]
    with serving(Access()) as counted, Browser(tmp_path) as browser:
        tab = browser.tab()
        tab.open(f"http://{counted.own}")
        tab.until("state.now === 1", "the page's data")
        sizes = []
        tracemalloc.start()
        for number in range(NIGHT):
            episodes = {"folder": "x", "newest": [], "counts": [[str(number), 1]], "problem": "", "target": number + 1}
            counted.shown = {"now": number, "cameras": [camera(number)], "episodes": episodes}
            counted.server.update()
            counted.server.show("/a", images[number % 2])
            time.sleep(0.001)
            if number % 10 == 0:
                tab.js(f"order('x', '{number}')")
            if (number + 1) % (NIGHT // 3) == 0:
                tab.until(f"state.now === {number}", "the newest state")
                tab.send("HeapProfiler.collectGarbage")
                counters = tab.send("Memory.getDOMCounters")
                heap = tab.send("Runtime.getHeapUsage")["usedSize"]
                gc.collect()
                server = SPARE + tracemalloc.get_traced_memory()[0]
                sizes.append((counters["nodes"], counters["jsEventListeners"], heap, server))
        tracemalloc.stop()
        assert tab.js("document.getElementById('log').children.length") == 50
        for first, last in zip(sizes[0], sizes[-1], strict=True):
            assert last < GROWTH * first, sizes


@needs_browser
def test_a_page_of_yesterday_asks_for_a_new_token_and_its_old_one_orders_nothing(tmp_path):
    tokens = "a" * 32, "b" * 32
    with Browser(tmp_path) as browser:
        tab = browser.tab()
        with serving(Access((ORIGIN,), tokens[0])) as counted:
            port = counted.server.port
            tab.open(f"http://{counted.own}")
            tab.until("location.pathname === '/login' && document.activeElement?.id === 'token'", "the form")
            tab.type(tokens[0])
            tab.key("Enter")
            tab.until(LOADED, "the page's data")
        tab.until("!document.getElementById('banner').hidden", "the loss of the connection")
        with serving(Access((ORIGIN,), tokens[1]), port=port) as counted:
            tab.until("location.pathname === '/login'", "the form again")
            assert counted.orders == [] and counted.stops == 0
            tab.until("document.activeElement?.id === 'token'", "the form")
            tab.type(tokens[1])
            tab.key("Enter")
            tab.until(LOADED, "the page's data")


@pytest.mark.timing
def test_a_camera_of_4k_and_1_hz_is_shown_and_not_taken_for_silent(ros):
    node, spinner = Node("cameras"), SingleThreadedExecutor()
    spinner.add_node(node)
    frames: list[tuple[str, bytes]] = []
    cameras = CameraThread(node, 10.0, 480, lambda topic, frame: frames.append((topic, frame)))
    publisher = node.create_publisher(Image, "/big/image_raw", NEWEST)
    cameras.subscribe({"/big/image_raw": "sensor_msgs/msg/Image"})
    pixels = np.full((2160, 3840, 3), 90, np.uint8)
    marked: list[bool] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            (shown,) = [camera.describe(time.monotonic()) for camera in cameras.cameras]
            marked.append(shown["silent"])

    watcher = threading.Thread(target=watch, daemon=True)
    cameras.start()
    watcher.start()
    for number in range(1, 4):
        due_s = time.monotonic() + 1.0
        publisher.publish(image_from_numpy(pixels, node.get_clock().now().nanoseconds, "big"))
        wait_for(lambda number=number: len(frames) >= number, lambda: "the image")
        time.sleep(max(0.0, due_s - time.monotonic()))
    ended.set()
    watcher.join()
    (shown,) = [camera.describe(time.monotonic()) for camera in cameras.cameras]
    cameras.end()
    node.destroy_node()
    assert (shown["size"], shown["problem"], shown["name"]) == ("3840x2160", "", "big")
    assert marked and not any(marked)
    assert max(len(frame) for _, frame in frames) < 20_000  # scaled down
