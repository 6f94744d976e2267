"""Start a policy, and the simulated arm unless `arm` names a real one that is already running.

ros2 launch m2distill_policy run.launch.py checkpoint:=DIRECTORY
ros2 launch m2distill_policy run.launch.py checkpoint:=DIRECTORY arm:=franka_servo namespace:=left
ros2 launch m2distill_policy run.launch.py --show-args
"""

from m2distill_policy.bringup.system import SystemLaunchConfig, missing_policy, system_nodes
from m2distill_policy.ros.common.launch_description import description


def generate_launch_description():
    return description(SystemLaunchConfig, system_nodes, rviz=True, required=True, note=missing_policy)
