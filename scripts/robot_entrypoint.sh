#!/bin/bash
# Entry point of the robot image: source ROS 2 and the workspace, then run the command.
set -e
source /opt/ros/jazzy/setup.bash
source /opt/m2distill_ws/setup.bash
exec "$@"
