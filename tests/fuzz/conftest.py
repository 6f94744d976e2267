"""Readers of outside files against damaged and hostile ones: each gives what is there or a UserError, and nothing else.

    damage.py    what is done to a good file: bytes, or the values of a document
    reading.py   a process that reads one case after the other, within limits of time and memory
    test_*.py    one reader each: a small good case, and what is made of it

M2DISTILL_FUZZ=5000 runs so many cases a test in place of a few, other ones each time.
"""

import sys
from pathlib import Path

for folder in ("fuzz", "training"):  # the second for bag_writer.py
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
