# Source this file: .venv first on PATH and, with a ROS 2 distribution, the built workspace.
_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PATH="$_root/.venv/bin:$PATH"
export MUJOCO_GL=${MUJOCO_GL:-egl}
# With the ROS wheels in .venv nothing is sourced; build_workspace.sh decides by the same folder.
if [[ -n ${ROS_DISTRO:-} && ! -d $_root/.venv/share/rosidl_default_generators ]]; then source "$_root/ros2_ws/install/setup.bash"; fi
unset _root
