"""Start a policy for an arm or a simulator that is already running.

ros2 launch m2distill_policy policy.launch.py checkpoint:=DIRECTORY arm:=ur_servo
ros2 launch m2distill_policy policy.launch.py --show-args
"""

from m2distill_policy.bringup.system import PolicyLaunchConfig, missing_policy, policy_nodes
from m2distill_policy.ros.common.launch_description import description


def generate_launch_description():
    return description(PolicyLaunchConfig, policy_nodes, rviz=True, note=missing_policy)
