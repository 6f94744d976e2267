"""Images for the page: the newest one of each camera, as a JPEG, at a limited rate and cost.

No thread waits for images: they are taken from DDS when a page is due for the next one, and all others are dropped
there without work in Python. Cameras are subscribed to only while a page is visible.
"""

import json
import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from m2distill_policy.errors import MessageError
from m2distill_policy.ros.common.background import lower_priority
from m2distill_policy.ros.common.conversions import compressed_image_to_numpy, image_to_numpy

TYPES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
NEWEST = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
MAX_CAMERAS = 8
SHARE = 0.05  # of a core that images may take, about; large ones are shown less often
JPEG_QUALITY = 80
SILENT_S = 2.0  # without an image, after which a camera is marked
END_LIMIT_S = 2.0


class Polled(CallbackGroup):
    """Callback group of subscriptions that no executor waits for; `take` reads them."""

    def can_execute(self, entity) -> bool:
        return False

    def beginning_execution(self, entity) -> bool:
        return False

    def ending_execution(self, entity) -> None:
        return None


def take(subscription: Subscription) -> tuple | None:
    """Return the newest message of a polled subscription and its info, or None if there is no new one."""
    try:
        with subscription.handle:
            return subscription.handle.take_message(subscription.msg_type, False)
    except InvalidHandle:  # it was destroyed
        return None


class Camera:
    """One image topic, with what the page shows about it."""

    def __init__(self, name: str, topic: str, subscription: Subscription):
        self.name, self.topic, self.subscription = name, topic, subscription
        self.size = self.problem = ""
        self.rate_hz: float | None = None
        self.received_s = 0.0  # steady clock
        self.due_s = time.monotonic()  # when the next image is taken
        self._counted: tuple[int, float] | None = None  # number of a message by its publisher's count, and its time

    def read(self, now_s: float, width_px: int) -> bytes | None:
        """Return a new image as a JPEG that is at most so wide, or None."""
        taken = take(self.subscription)
        if taken is None:
            return None
        message, info = taken
        self._count(info.get("publication_sequence_number", 0), now_s)
        self.received_s = now_s
        try:
            image = image_to_numpy(message) if isinstance(message, Image) else compressed_image_to_numpy(message)
        except MessageError as error:
            self.problem = str(error)
            return None
        self.problem, self.size = "", f"{image.shape[1]}x{image.shape[0]}"
        return encode(image, width_px)

    def _count(self, number: int, now_s: float) -> None:
        """Estimate the rate from the publisher's own count, because most messages are dropped here."""
        if self._counted is None or number <= self._counted[0]:  # the first one, or the publisher was started again
            self._counted, self.rate_hz = (number, now_s), None
        elif now_s - self._counted[1] >= 1.0:
            self.rate_hz = (number - self._counted[0]) / (now_s - self._counted[1])
            self._counted = number, now_s

    def describe(self, now_s: float) -> dict:
        """Return what the page shows besides the image."""
        age_s = round(now_s - self.received_s, 1) if self.received_s else None
        rate_hz = None if self.rate_hz is None else round(self.rate_hz)
        return {
            "name": self.name,
            "topic": self.topic,
            "age_s": age_s,
            "silent": now_s - max(self.received_s, self.due_s) > SILENT_S,  # not if it is shown less often
            "rate_hz": rate_hz,
            "size": self.size,
            "problem": self.problem,
        }


def encode(image_HWC: np.ndarray, width_px: int) -> bytes:
    """Return an RGB image as a JPEG, scaled down if it is wider than `width_px`."""
    height, width = image_HWC.shape[:2]
    if width > width_px:
        image_HWC = cv2.resize(image_HWC, (width_px, max(1, height * width_px // width)), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image_HWC, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def frame(camera: Camera, jpeg: bytes) -> bytes:
    """Return the message to a page: length of a JSON header in two bytes, the header, the JPEG."""
    header = json.dumps({"topic": camera.topic}).encode()
    return len(header).to_bytes(2, "big") + header + jpeg


class CameraThread:
    """Thread of low priority that reads the cameras and sends their images on.

    Args:
        node: Node that subscribes.
        rate_hz: Maximum rate of images of one camera.
        width_px: Maximum width of an image.
        send: Function that is called with the topic and the message for each new image.
    """

    def __init__(self, node: Node, rate_hz: float, width_px: int, send: Callable[[str, bytes], None]):
        self._node, self._period_s, self._width_px, self._send = node, 1 / rate_hz, width_px, send
        self._group = Polled()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)
        self.cameras: tuple[Camera, ...] = ()
        cv2.setNumThreads(1)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(END_LIMIT_S)

    def subscribe(self, topics: dict[str, str]) -> None:
        """Read these topics, given with their types, and no others. On the node's thread."""
        wanted = dict(sorted(topics.items())[:MAX_CAMERAS])
        kept = [camera for camera in self.cameras if camera.topic in wanted]
        gone = [camera for camera in self.cameras if camera.topic not in wanted]
        for topic in wanted.keys() - {camera.topic for camera in kept}:
            subscription = self._node.create_subscription(
                TYPES[wanted[topic]], topic, lambda _: None, NEWEST, callback_group=self._group
            )
            kept.append(Camera(camera_name(topic), topic, subscription))
        self.cameras = tuple(sorted(kept, key=lambda camera: camera.topic))
        for camera in gone:
            self._node.destroy_subscription(camera.subscription)

    def _run(self) -> None:
        lower_priority()
        while not self._ended.wait(self._period_s / 2):
            for camera in self.cameras:
                begun_s, busy_s = time.monotonic(), time.thread_time()
                if begun_s < camera.due_s:
                    continue
                try:
                    jpeg = camera.read(begun_s, self._width_px)
                except (cv2.error, MemoryError) as error:
                    camera.problem, jpeg = f"cannot be shown: {error}", None
                spent_s = time.thread_time() - busy_s
                if jpeg is not None:
                    self._send(camera.topic, frame(camera, jpeg))
                    camera.due_s = begun_s + max(self._period_s * 0.9, spent_s * len(self.cameras) / SHARE)


def camera_name(topic: str) -> str:
    """Return the name of a camera from its topic: `wrist` of /left/wrist/image_raw/compressed."""
    parts = [part for part in topic.split("/") if part and part not in ("compressed", "image_raw")]
    return parts[-1] if parts else topic
