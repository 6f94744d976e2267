"""Fuzz tests: readers of external files must return the content or raise UserError for damaged and hostile files.

    damage.py    edits of a valid file: of its bytes, or of the values of a document
    reading.py   a process that reads one case after the other, within limits of time and memory
    test_*.py    one reader each: a small valid case and its edits

M2DISTILL_FUZZ=5000 runs this number of cases per test instead of a few, with new cases in each run.
"""

import sys
from pathlib import Path

for folder in ("fuzz", "training"):  # the second for bag_writer.py
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
