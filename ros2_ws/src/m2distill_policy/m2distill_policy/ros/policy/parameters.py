"""The parameters of the policy node, in groups; those of SafetyLimits are another group."""

from dataclasses import dataclass

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.control.inference import PRECISIONS
from m2distill_policy.safety.arm_presets import ARMS
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.utils.parameters import parameter


@dataclass(frozen=True)
class ArmParameters:
    """Read first: the arm chooses the defaults of all others."""

    arm: str = parameter(
        "unknown",
        "preset of limits and outputs (arms.py); parameters that are set stay set",
        choices=tuple(ARMS),
        read_only=True,
    )


@dataclass(frozen=True)
class PolicyParameters:
    checkpoint: str = parameter("", "directory of the checkpoint, read by `configure`; set later, it is swapped in")
    follow_checkpoint: bool = parameter(
        False,
        "reload when `checkpoint` is a link that points elsewhere, as m2distill promote moves a run's `current`",
        read_only=True,
    )
    autostart: bool = parameter(False, "configure and activate at start, without a lifecycle manager", read_only=True)
    pacing: str = parameter("real_time", "when to act", choices=("real_time", "lockstep"), read_only=True)
    sampling: str = parameter(DEFAULT_SAMPLING, "how the mixture becomes an action", choices=SAMPLING_MODES)
    seed: int = parameter(
        0, "of the policy's draws, which begin anew at every activation", at_least=0, at_most=2**31 - 1
    )
    precision: str = parameter(
        "float32",
        "of the convolutions; bfloat16 is faster where the processor has it, and moves actions by about 1e-3",
        choices=tuple(PRECISIONS),
        read_only=True,
    )
    torch_threads: int = parameter(1, "CPU threads of one step of the network", at_least=1, at_most=64)
    image_transport: str = parameter(
        "raw",
        "raw: <camera>/image_raw; compressed: <camera>/image_raw/compressed",
        choices=("raw", "compressed"),
        read_only=True,
    )
    success_topic: str = parameter(
        "success", "std_msgs/Bool that ends a goal of ~/execute with success", read_only=True
    )
    min_similarity: float = parameter(
        0.93,
        "likeness to a known instruction from which on a text is read as that one; "
        "1: exact texts only (instructions.py)",
        at_least=0.0,
        at_most=1.0,
    )


@dataclass(frozen=True)
class OutputParameters:
    """Read by `configure`."""

    output: str = parameter(
        "twist",
        "twist: TwistStamped on twist_cmd, as MoveIt Servo wants it; pose: PoseStamped on "
        "target_pose, for a Cartesian impedance controller; array: Float64MultiArray on "
        "velocity_cmd",
        choices=("twist", "pose", "array"),
    )
    dry_run: bool = parameter(False, "no command topics at all: ~/action, ~/status and /diagnostics only")
    frame_id: str = parameter("", "of the commands and of ee_pose; empty: the checkpoint's")
    command_stamp: str = parameter(
        "observation",
        "of a command: that of the observation it answers, or of its sending",
        choices=("observation", "sending"),
    )
    gripper_output: str = parameter(
        "width",
        "width: Float64 on gripper_cmd, m; action: control_msgs/GripperCommand, client of gripper_action",
        choices=("width", "action"),
    )
    gripper_action_scale: float = parameter(
        1.0, "GripperCommand's position is offset + scale x opening in m", at_least=-1000.0, at_most=1000.0
    )
    gripper_action_offset: float = parameter(0.0, "see gripper_action_scale", at_least=-1000.0, at_most=1000.0)
    gripper_effort_n: float = parameter(20.0, "GripperCommand's max_effort", at_least=0.0, at_most=1000.0)
    gripper_min_change_m: float = parameter(
        0.005, "smallest change of the opening that is a new GripperCommand", at_least=0.0, at_most=0.2
    )


GROUPS = (PolicyParameters, OutputParameters, SafetyLimits)  # declared after ArmParameters
