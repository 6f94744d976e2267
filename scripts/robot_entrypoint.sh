#!/bin/bash
# Entry point of the robot image: ROS 2 and the workspace, then the command.
set -e
source /opt/ros/jazzy/setup.bash
source /opt/m2distill_ws/setup.bash
exec "$@"
