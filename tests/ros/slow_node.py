"""The policy node on a slow disk: a checkpoint that has been read waits for the file `go` in the folder of the first
argument, and the file `read` there tells that it does."""

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
