"""Message definitions for episodes: those of Jazzy from rosbags, and ours as installed."""

import os
import sys
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

INTERFACES = "m2distill_interfaces"


def bag_types() -> Typestore:
    """Return the type store of an episode."""
    types = get_typestore(Stores.ROS2_JAZZY)
    for name in ("PolicyAction", "PolicyStatus"):
        types.register(get_types_from_msg(_definition(name), f"{INTERFACES}/msg/{name}"))
    return types


def _definition(name: str) -> str:
    """Return the definition of a message; with the PyPI wheels it is in Python's prefix, not in AMENT_PREFIX_PATH."""
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    paths = [Path(prefix) / "share" / INTERFACES / "msg" / f"{name}.msg" for prefix in prefixes]
    return next(path for path in paths if path.is_file()).read_text()
