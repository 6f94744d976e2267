"""Policy node with a slow disk, simulated in the folder of the first argument.

A checkpoint that has been read creates the file `read` and waits for the file `go`.
"""

import sys
import time
from pathlib import Path

from m2distill_policy.ros.nodes import policy_node
from m2distill_policy.ros.policy import checkpoint_reloader

folder = Path(sys.argv.pop(1))
load = checkpoint_reloader.load


def slow_load(*arguments):
    loaded = load(*arguments)
    (folder / "read").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return loaded


checkpoint_reloader.load = slow_load
sys.exit(policy_node.main())
