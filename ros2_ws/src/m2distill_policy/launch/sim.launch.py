"""Start the LIBERO simulator: an arm with cameras that follows twist_cmd and gripper_cmd.

ros2 launch m2distill_policy sim.launch.py suite:=libero_goal task:=3
ros2 launch m2distill_policy sim.launch.py --show-args
"""

from m2distill_policy.bringup.system import SimLaunchConfig, sim_nodes
from m2distill_policy.ros.common.launch_description import description


def generate_launch_description():
    return description(SimLaunchConfig, sim_nodes)
