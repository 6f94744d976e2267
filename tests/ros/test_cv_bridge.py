"""cv_bridge decodes images if it is installed and gives the same numbers; a broken one is reported and not used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import array, sys
import numpy as np
from sensor_msgs.msg import Image
from m2distill_policy.errors import MessageError
from m2distill_policy.observations.image_decoding import ENCODINGS, decode_raw
from m2distill_policy.ros.common.cv_bridge_decoding import bridge, decoder, known_image
decode = decoder()
for encoding in ENCODINGS:
    message = known_image(encoding)
    expected = decode_raw(encoding, message.height, message.width, message.step, False, message.data)
    image = decode(message)
    assert np.array_equal(image, expected) and image.flags.c_contiguous, encoding
message.encoding, message.step = "rgb8", 3
try:
    decode(message)
except MessageError as error:
    print("rejected:", error)
print("report:", bridge().report)
print("used:", getattr(sys.modules.get("cv_bridge"), "used", 0))
"""
WORKING = """
import cv2, numpy as np
used = 0
class CvBridge:
    def imgmsg_to_cv2(self, message, desired):
        global used
        used += 1
        assert desired == "rgb8"
        channels = {"mono8": 1, "rgb8": 3, "bgr8": 3}[message.encoding]
        rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        image = rows[:, : channels * message.width].reshape(message.height, message.width, channels)
        if message.encoding == "mono8":
            return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
        return image
"""


def decoded(folder: Path, module: str) -> str:
    """Return what the program prints beside this module cv_bridge."""
    (folder / "cv_bridge.py").write_text(module)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "rejected: image step is 3 bytes" in ended.stdout
    return ended.stdout


def test_a_working_one_is_used_for_the_encodings_that_it_decodes_as_we_do(tmp_path):
    """It returns BGR for bgr8, which would give the network wrong colours without an error."""
    printed = decoded(tmp_path, WORKING)
    assert "report: cv_bridge decodes images of mono8, rgb8; a known image of each was decoded as expected" in printed
    assert "used: 2\n" in printed


@pytest.mark.parametrize(
    ("module", "report"),
    [
        ("raise ImportError('numpy.core.multiarray failed to import')", "it fails with status 1: ImportError: nu"),
        ("import os\nos.abort()", "it fails with status -6: "),
    ],
)
def test_a_broken_one_is_reported_and_not_used(tmp_path, module, report):
    printed = decoded(tmp_path, module)
    assert f"report: cv_bridge is not used: {report}" in printed and "used: 0\n" in printed
