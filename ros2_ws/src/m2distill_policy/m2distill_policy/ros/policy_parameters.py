"""The parameters of the policy node."""

from dataclasses import dataclass

from m2distill_policy.inference import ACTING
from m2distill_policy.ros.params import parameter
from m2distill_policy.safety import SafetyLimits


@dataclass(frozen=True)
class PolicyParameters:
    checkpoint: str = parameter("", "directory of the checkpoint, read by `configure`")
    autostart: bool = parameter(False, "configure and activate at start, without a lifecycle manager", read_only=True)
    pacing: str = parameter("real_time", "when to act", choices=("real_time", "lockstep"), read_only=True)
    acting: str = parameter("sample", "how the mixture becomes an action", choices=ACTING)
    seed: int = parameter(0, "of the policy's draws", at_least=0, at_most=2**31 - 1)
    torch_threads: int = parameter(1, "CPU threads of one step of the network", at_least=1, at_most=64)
    image_transport: str = parameter("raw", "raw: <camera>/image_raw; compressed: <camera>/image_raw/compressed",
                                     choices=("raw", "compressed"), read_only=True)
    max_age_s: float = parameter(0.25, "oldest input acted on, by its stamp", at_least=0.001, at_most=60.0)
    max_lead_s: float = parameter(0.05, "how far a stamp may lie in the future", at_least=0.0, at_most=60.0)
    max_skew_s: float = parameter(0.1, "between the stamps of one step's inputs", at_least=0.0, at_most=60.0)
    watchdog_s: float = parameter(1.0, "longest silence of an input, by the steady clock", at_least=0.01, at_most=600.0)
    max_linear_m_s: float = parameter(SafetyLimits.max_linear_m_s, "speed limit", at_least=0.0, at_most=10.0)
    max_angular_rad_s: float = parameter(SafetyLimits.max_angular_rad_s, "speed limit", at_least=0.0, at_most=100.0)

    @property
    def limits(self) -> SafetyLimits:
        return SafetyLimits(round(self.max_age_s * 1e9), round(self.max_lead_s * 1e9), round(self.max_skew_s * 1e9),
                            self.max_linear_m_s, self.max_angular_rad_s)
