"""Helpers shared by the training package.

schemas.py         schemas of JSON records
checks.py          checks of configuration values
dataclass_json.py  dataclasses from JSON
installation.py    what is installed and usable
device.py          device of the training
allocator.py       settings of the C allocator
"""
