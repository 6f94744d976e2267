#!/bin/bash
# Build the ROS 2 workspace, in one of two ways:
#   - with a sourced ROS 2 distribution: plain `colcon build` into ros2_ws/install; source ros2_ws/install/setup.bash then;
#   - with the ROS 2 wheels in .venv: the messages are built into .venv, beside those of the wheels. Every Python of the
#     venv can import them, and nothing needs to be sourced. So are messages that have no wheel (wheel_messages/). pip has installed the two Python packages there already;
#     their colcon build into ros2_ws/install checks the packaging and serves users who source the workspace.
# Requires cmake, g++ and make. With the wheels, sources that are those of the last build are not built again.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root/ros2_ws"

venv="$root/.venv"
python="$venv/bin/python"
if [[ ! -d "$venv/share/rosidl_default_generators" ]]; then  # no wheels
    [[ -n "${ROS_DISTRO:-}" ]] || { echo "build_workspace: no ROS 2; run \`make setup\`, or source a distribution" >&2; exit 1; }
    exec colcon build --merge-install --cmake-args -DBUILD_TESTING=OFF
fi

mark="$root/ros2_ws/install/.m2distill-built"
built=$({
    find src wheel_messages "$root"/scripts/{build_workspace.sh,fix_ros_wheels.py} -type f \
        ! -path '*/__pycache__/*' ! -path '*.egg-info/*' ! -path '*/.*_cache/*' -print0 | sort -z | xargs -0 sha256sum
    cat "$venv/m2distill-setup"  # another installation of packages
    "$python" --version
} 2>&1 | sha256sum)
if [[ -d "$venv/share/m2distill_interfaces" && $(cat "$mark" 2>/dev/null) == "$built" ]]; then exit 0; fi
rm -f "$mark"

"$python" "$root/scripts/fix_ros_wheels.py"
export PATH="$venv/bin:$PATH" AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
colcon() { "$venv/bin/colcon" --log-base log build --merge-install --event-handlers console_cohesion- "$@"; }
tag=$("$python" -c 'import sys; print(sys.implementation.cache_tag)')  # CMake's cache fits one Python
colcon --base-paths src/m2distill_interfaces wheel_messages/*/ --build-base "build/$tag" --install-base "$venv" \
    --cmake-args -DBUILD_TESTING=OFF "-DPython3_EXECUTABLE=$python"
colcon --base-paths src --packages-ignore m2distill_interfaces
echo "$built" > "$mark"
