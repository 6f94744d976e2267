"""Checks before ROS 2 starts, whose libraries end the process or raise without stating what to do. No ROS import."""

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from m2distill_policy.errors import UserError

MAX_DOMAIN = 232  # a higher one has port numbers beyond 65535, and Fast DDS ends the process
WRONG_RMW_STATUS = 102  # with which rcl ends the process if RMW_IMPLEMENTATION is not installed


def check_ros_variables(variables: Mapping[str, str] = os.environ) -> None:
    """Raise UserError for environment variables with which no node can start."""
    domain = variables.get("ROS_DOMAIN_ID", "")
    if domain and not (domain.isascii() and domain.isdigit() and int(domain) <= MAX_DOMAIN):
        raise UserError(
            f"ROS_DOMAIN_ID is {domain!r}, expected a whole number from 0 to {MAX_DOMAIN}; set it, or unset it for 0"
        )
    folder = _log_folder(variables)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        problem = error.strerror or str(error)
    if problem:
        raise UserError(
            f"ROS 2 cannot write its logs into {folder} ({problem}); set ROS_LOG_DIR to a folder that can be written"
        )
    enforced = (variables.get("ROS_SECURITY_ENABLE"), variables.get("ROS_SECURITY_STRATEGY")) == ("true", "Enforce")
    keystore = variables.get("ROS_SECURITY_KEYSTORE", "")
    if enforced and not Path(keystore, "enclaves").is_dir():
        raise UserError(
            f"ROS_SECURITY_STRATEGY is Enforce and ROS_SECURITY_KEYSTORE is {keystore!r}, which has no folder "
            "`enclaves`; set it to a keystore of `ros2 security`, or unset ROS_SECURITY_ENABLE"
        )


def _log_folder(variables: Mapping[str, str]) -> Path:
    """Return the folder in which rcl writes its logs."""
    home = variables.get("HOME", "~")
    chosen = variables.get("ROS_LOG_DIR") or f"{variables.get('ROS_HOME') or f'{home}/.ros'}/log"
    return Path(chosen.replace("~", home, 1) if chosen.startswith("~") else chosen)


def missing_rmw(status: int, variables: Mapping[str, str] = os.environ) -> str:
    """Return what the exit status of a ROS process means if its middleware is missing; empty for another status."""
    if status != WRONG_RMW_STATUS:
        return ""
    name = variables.get("RMW_IMPLEMENTATION", "")
    return f"RMW_IMPLEMENTATION is {name!r}, which is not installed; install it, or unset the variable"


def check_dashboard() -> None:
    """Raise UserError if the packages of the dashboard are not installed."""
    missing = [name for name in ("starlette", "uvicorn", "websockets") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the dashboard needs the Python package {missing[0]}, which is not installed; "
            "pip install 'm2distill[dashboard]'"
        )


def check_texts(words: Iterable[str]) -> None:
    """Raise UserError for a word of the command line that is no UTF-8, which no ROS message or parameter can hold."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the argument {os.fsencode(word)!r} is no UTF-8 text; set the terminal and the locale to UTF-8 and "
                "type it again"
            ) from None
