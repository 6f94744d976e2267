"""The parameters of the policy node, in groups; those of SafetyLimits are another group."""

from dataclasses import dataclass

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.control.inference import PRECISIONS
from m2distill_policy.safety.arm_presets import arm_names
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.safety.output_parameters import OutputParameters
from m2distill_policy.utils.parameters import parameter


@dataclass(frozen=True)
class ArmParameters:
    """Read first: the arm chooses the defaults of all others."""

    arm: str = parameter(
        "unknown",
        f"limits and outputs of the arm: a preset ({', '.join(arm_names())}) or the path of an arm file; parameters "
        "that are set take precedence",
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
    min_similarity: float = parameter(
        0.93,
        "likeness to a known instruction from which on a text is read as that one; "
        "1: exact texts only (instructions.py)",
        at_least=0.0,
        at_most=1.0,
    )


GROUPS = (PolicyParameters, OutputParameters, SafetyLimits)  # declared after ArmParameters
