"""Utilities without a dependency on the other rooms.

    files.py       files and folders that are complete or absent after a crash
    parameters.py  a setting as a dataclass field with description and range

Invariant: standard library only.
"""
