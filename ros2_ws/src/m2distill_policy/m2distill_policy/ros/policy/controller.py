"""The active part of the policy node: control loop, instructions and goals, from activation to deactivation."""

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_policy.bringup.parameters import PolicyParameters
from m2distill_policy.control.session import PolicySession
from m2distill_policy.language.instruction_matcher import InstructionMatcher
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.policy.control_loop import ControlLoop
from m2distill_policy.ros.policy.execute_server import ExecuteServer
from m2distill_policy.ros.policy.instruction_handler import InstructionHandler
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.status_publisher import StatusPublisher


class PolicyController:
    """Connects the control loop (`loop`), the instructions (`instructions`) and the action server."""

    def __init__(
        self,
        entities: ManagedEntities,
        session: PolicySession,
        settings: PolicyParameters,
        outputs: Outputs,
        publisher: StatusPublisher,
        background: BackgroundExecutor,
    ):
        self.active = False
        self._goals = ExecuteServer(
            entities.node,
            is_active=lambda: self.active,
            begin=self._follow,
            end=self._halt,
        )
        entities.at_destruction(self._goals.destroy)
        entities.at_destruction(self._abandon)
        self.loop = ControlLoop(entities, session, settings, outputs, publisher, self._goals)
        self.instructions = InstructionHandler(
            entities.node,
            session,
            InstructionMatcher(settings.min_similarity),
            self.loop,
            self._goals,
            background,
            lambda: self.active,
        )

    def _follow(self, text: str) -> None:
        self.instructions.follow(text)

    def _halt(self, reason: str) -> str:
        return self.instructions.halt(reason)

    def start(self) -> None:
        """Start a run at activation; nothing moves until an instruction arrives."""
        self.loop.start()
        self.active = True
        self.loop.hold("no instruction")

    def end(self) -> None:
        """End the run at deactivation; the zero command is the last message published."""
        self._goals.finish(ExecuteInstruction.Result.DEACTIVATED, "the node was deactivated")
        self.loop.run.pending_text = None
        self.loop.end()
        self.active = False

    def _abandon(self) -> None:
        """Leave no motion and no thread behind after an error in a transition."""
        if self.active:
            self.active = False
            self.loop.abandon()
