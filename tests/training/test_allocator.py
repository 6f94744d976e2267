"""Measured in a process of its own: what the allocator does shows in page faults and resident memory."""

import subprocess
import sys

import pytest

CODE = """
import contextlib, resource, sys
import psutil
from m2distill_training.utils.allocator import freed_memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():  # 64 MB, written and freed, as an activation is
    b'x' * (64 << 20)

with freed_memory_kept() if sys.argv[1] == "kept" else contextlib.nullcontext():
    work()
    before = faults()
    for _ in range(10):
        work()
    print(faults() - before)
print(psutil.Process().memory_info().rss >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_blocks_are_taken_again_without_page_faults_and_given_back_in_the_end():
    faults, rss_mb = {}, {}
    for how in ("kept", "default"):
        output = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout
        faults[how], rss_mb[how] = map(int, output.split())
    assert faults["default"] > 10_000  # 64 MB are 16,384 pages of 4 kB, allocated ten times
    assert faults["kept"] < faults["default"] / 10
    assert rss_mb["kept"] < rss_mb["default"] + 32
