"""Parameters of the nodes: the one place where each name, default, range and description is written.

The nodes declare these dataclasses as ROS parameters (`ros/common/parameters.py`), the launch files and `m2distill run`
derive their options from them (`launch_config.py`), and `scripts/reference.py` prints them. Nothing here imports ROS or
torch. Three more groups belong to the nodes: `safety.limits.SafetyLimits`,
`safety.output_parameters.OutputParameters` and `control.teleop.TeleopSettings`.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.control.precision import BACKENDS, DEVICES, PRECISIONS
from m2distill_policy.safety.arm_presets import arm_names
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.suites import DEFAULT_SUITE, LIBERO_SUITES, listed
from m2distill_policy.utils.parameters import parameter

SIMULATED_ARM = "libero_sim"


def same_parameter(owner: type, name: str) -> Any:
    """Return a dataclass field with the default, description and range of the field `name` of `owner`."""
    field = owner.__dataclass_fields__[name]  # type: ignore[attr-defined]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclass(frozen=True)
class ArmParameters:
    """Parameters of `policy` that are read first, because the arm sets the defaults of all others."""

    arm: str = parameter(
        "unknown",
        f"limits and outputs of the arm: a preset ({', '.join(arm_names())}) or the path of an arm file; parameters "
        "that are set take precedence",
        read_only=True,
    )


@dataclass(frozen=True)
class PolicyParameters:
    """Parameters of `policy` for the checkpoint, the timing and the inputs."""

    checkpoint: str = parameter(
        "", "directory of the checkpoint, read by `configure`; setting it later swaps it in", path=True
    )
    follow_checkpoint: bool = parameter(
        False,
        "reload when `checkpoint` is a symbolic link and its target changes, as m2distill promote does with a run's "
        "`current`",
        read_only=True,
    )
    autostart: bool = parameter(False, "configure and activate at startup, without a lifecycle manager", read_only=True)
    pacing: str = parameter(
        "real_time",
        "real_time: one step per control period; lockstep: the simulator waits for each command, so that a slow "
        "machine produces the same episode",
        choices=("real_time", "lockstep"),
        read_only=True,
    )
    sampling: str = parameter(
        DEFAULT_SAMPLING,
        "how the policy's mixture becomes an action: stochastic, low_noise or mode (the mean of the most likely mode)",
        choices=SAMPLING_MODES,
    )
    seed: int = parameter(
        0, "seed of the action sampling, which restarts at every activation", at_least=0, at_most=2**31 - 1
    )
    precision: str = parameter(
        "float32",
        "precision of the convolutions; bfloat16 is faster on processors that support it and changes actions by about "
        "1e-3",
        choices=PRECISIONS,
        read_only=True,
    )
    inference_backend: str = parameter(
        "torch",
        "what computes the convolutions: torch, or openvino, which is faster and must be installed (extra openvino)",
        choices=BACKENDS,
        read_only=True,
    )
    device: str = parameter(
        "cpu",
        "what runs the network: cpu, or cuda, an NVIDIA GPU; checkpoints that are loaded later use it too",
        choices=DEVICES,
        read_only=True,
    )
    torch_threads: int = parameter(1, "number of CPU threads for one step of the network", at_least=1, at_most=64)
    image_transport: str = parameter(
        "raw",
        "raw: <camera>/image_raw; compressed: <camera>/image_raw/compressed",
        choices=("raw", "compressed"),
        read_only=True,
    )
    min_similarity: float = parameter(
        1.0,
        "minimum cosine similarity for an unseen instruction to match a known one, for example 0.93; 1: exact matches "
        "only",
        at_least=0.0,
        at_most=1.0,
    )
    goal_start_timeout_s: float = parameter(
        60.0,
        "time after which a goal of ~/execute that has not moved the arm is aborted, in s; its time limit starts with "
        "the first motion",
        at_least=0.1,
        at_most=3600.0,
    )
    time_limit_succeeds: bool = parameter(
        False, "a goal that reaches its time limit succeeds, after at least one motion, instead of being aborted"
    )
    operator_timeout_s: float = parameter(
        1.0,
        "silence of `operator_active` after which ~/start and ~/stop may take the arm back, in s; nothing else does",
        at_least=0.1,
        at_most=60.0,
    )


# The groups of `policy` that are declared after ArmParameters, with the arm's defaults.
POLICY_GROUPS = (PolicyParameters, OutputParameters, SafetyLimits)


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters of `recorder`."""

    directory: str = parameter("episodes", "folder for recorded episodes", read_only=True, path=True)
    checkpoint: str = parameter(
        "",
        "checkpoint whose spec names the topics to record; empty: the arm file describes the robot",
        read_only=True,
        path=True,
    )
    operator: str = parameter("", "name of the person who teleoperates or supervises, a label of recorded episodes")
    arm: str = parameter(
        SIMULATED_ARM,
        f"arm of the episodes, whose joints, topics and gains the importer requires: a preset "
        f"({', '.join(arm_names())}) or the path of an arm file",
        read_only=True,
    )
    image_transport: str = same_parameter(PolicyParameters, "image_transport")
    autostart: bool = same_parameter(PolicyParameters, "autostart")
    max_gap_s: float = parameter(
        0.25,
        "longest gap between messages of a camera or of the joints that is not reported, in s",
        at_least=0.01,
        at_most=60.0,
        read_only=True,
    )
    min_free_mib: int = parameter(
        2000,
        "free disk space in MiB below which no episode starts, and the open one is ended and kept",
        at_least=10,
        at_most=10**9,
    )


@dataclass(frozen=True)
class TeleopParameters:
    """Parameters of `teleop` that are not about the joystick's layout."""

    device: str = parameter(
        "joy",
        "joy: sensor_msgs/Joy on the topic `joy`; keyboard: the keyboard of the terminal in which the node runs",
        choices=("joy", "keyboard"),
        read_only=True,
    )
    rate_hz: float = parameter(
        20.0, "rate of the commands, in Hz; default: the arm's", at_least=1.0, at_most=200.0, read_only=True
    )
    frame_id: str = parameter("panda_link0", "frame of the commands; default: the arm's", read_only=True)


@dataclass(frozen=True)
class DashboardParameters:
    """Parameters of `dashboard`."""

    host: str = parameter(
        "127.0.0.1",
        "address that the page listens on; all but loopback addresses require `origin` and `token_file`",
        read_only=True,
    )
    port: int = parameter(
        8770, "port of the page; 0: a free one, which the log names", at_least=0, at_most=65535, read_only=True
    )
    origin: str = parameter(
        "",
        "origins under which browsers of other computers reach the page, separated by spaces, for example "
        "http://robot.lan:8770",
        read_only=True,
    )
    token_file: str = parameter(
        "",
        "file with the token that browsers of other computers must send once; created with a random one if missing",
        read_only=True,
        path=True,
    )
    episodes: str = parameter(
        "", "the recorder's folder, whose kept episodes the page lists; empty: none", read_only=True, path=True
    )
    run: str = parameter(
        "",
        "run folder that learns from the episodes when the page requests it, on this computer; empty: the page cannot "
        "start learning",
        read_only=True,
        path=True,
    )
    target_episodes: int = parameter(
        10, "number of episodes planned per instruction, which the page can change", at_least=1, at_most=10_000
    )
    image_rate_hz: float = parameter(
        10.0, "maximum rate of the images of one camera, in Hz", at_least=0.1, at_most=60.0, read_only=True
    )
    image_width_px: int = parameter(
        480, "width in pixels to which wider images are scaled down", at_least=16, at_most=4096, read_only=True
    )


@dataclass(frozen=True)
class SimParameters:
    """Parameters of `sim`."""

    suite: str = parameter(
        DEFAULT_SUITE,
        f"suite of tasks: {listed(LIBERO_SUITES)}; applied by ~/reset",
    )
    task: int = parameter(0, "index of the task within the suite, from 0; applied by ~/reset", at_least=0, at_most=129)
    initial_state: int = parameter(
        0,
        "index among the task's initial states: 0 to 39 are for demonstrations, 40 to 49 for evaluation; -1: a "
        "placement drawn by the simulator's `seed`; applied by ~/reset",
        at_least=-1,
        at_most=999,
    )
    seed: int = parameter(0, "seed of a drawn placement; applied by ~/reset", at_least=0, at_most=2**31 - 1)
    step_limit: int = parameter(
        0,
        "maximum steps per episode, with or without an instruction; 0 disables the limit, LIBERO's evaluation uses 600",
        at_least=0,
        at_most=1_000_000,
    )
    video: str = parameter(
        "", "mp4 file of the next episode, written when it ends; empty: no video; applied by ~/reset", path=True
    )
    assets: str = parameter(
        "",
        "source of the assets: builtin, installed, hub or a folder; empty: the best available",
        read_only=True,
        path=True,
    )
    image_size_px: int = parameter(
        128,
        "side of the cameras' images in pixels, at least the checkpoint's",
        at_least=16,
        at_most=1024,
        read_only=True,
    )
    cameras: str = parameter(
        "",
        "YAML or JSON file that lists the cameras to publish, as for training; empty: agentview and wrist",
        read_only=True,
        path=True,
    )
    pacing: str = same_parameter(PolicyParameters, "pacing")
    command_max_age_s: float = parameter(
        0.25, "real_time: maximum age of a twist that is still applied, in s", at_least=0.01, at_most=60.0
    )
    driver: str = parameter(
        "none",
        "expert: the scripted expert drives the arm through the command topics, like an operator; applied by ~/reset",
        choices=("none", "expert"),
    )
    disturbed: bool = parameter(False, "push the arm while the expert drives it; applied by ~/reset")
    repeat_period_s: float = parameter(
        1.0,
        "lockstep: wall time after which an unanswered observation is published again, in s",
        at_least=0.05,
        at_most=600.0,
        read_only=True,
    )
