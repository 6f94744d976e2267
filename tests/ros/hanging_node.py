"""Policy node whose policy hangs when the first joint exceeds 0.5 rad.

The first argument selects how: `waits` for a lock that is never released, `computes` without end.
"""

import sys
import threading

from m2distill_policy.control import inference
from m2distill_policy.ros.nodes import policy_node

way, step = sys.argv.pop(1), inference.InferencePolicy.step


def hanging_step(policy, observation):
    if observation.joint[0] > 0.5:
        while True:
            if way == "waits":
                threading.Event().wait()
    return step(policy, observation)


inference.InferencePolicy.step = hanging_step
sys.exit(policy_node.main())
