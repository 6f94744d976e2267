"""The active part of the policy node: control loop, instructions and goals, from activation to deactivation."""

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
from m2distill_policy.safety.authority import HAS_ARM, Authority, Event, State


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
        self.authority = Authority()
        self._publisher, self._log = publisher, entities.node.get_logger()
        self._goals = ExecuteServer(
            entities.node,
            settings,
            why_rejected=self._why_rejected,
            begin=self._follow,
            end=self._end_goal,
            on_rejection=self._on_rejection,
        )
        entities.at_destruction(self._goals.destroy)
        entities.at_destruction(self._abandon)
        self.loop = ControlLoop(entities, session, self.authority, settings, outputs, publisher, self._goals)
        self.instructions = InstructionHandler(
            entities.node,
            self.authority,
            session,
            InstructionMatcher(settings.min_similarity),
            self.loop,
            self._goals,
            background,
            lambda: self.active,
        )
        self.loop.on_fault = self.instructions.fault
        self.loop.check_operator = lambda: self.instructions.check_operator(settings.operator_timeout_s)

    def _follow(self, text: str) -> None:
        self.instructions.execute(text)

    def _end_goal(self, event: Event, reason: str) -> str:
        return self.instructions.end_goal(event, reason)

    def _why_rejected(self) -> str:
        return self.authority.why_rejected(Event.EXECUTE) if self.active else "the node is not active"

    def _on_rejection(self, line: str) -> None:
        self._log.warning(line)
        self._publisher.status(notice=line)

    def start(self) -> None:
        """Start a run at activation; nothing moves until an instruction arrives."""
        self.authority.apply(Event.DEACTIVATE)  # nothing of what was received before moves the arm
        self.loop.start()
        self.active = True
        reasons = {State.IDLE: "no instruction", State.FAULT: self.authority.fault}
        self.loop.hold(reasons.get(self.authority.state, HAS_ARM), stop=self.authority.state in reasons)

    def end(self) -> None:
        """End the run at deactivation; the zero command is the last message published."""
        self.instructions.deactivate()
        self.loop.end()
        self.active = False

    def _abandon(self) -> None:
        """Leave no motion and no thread behind after an error in a transition."""
        if self.active:
            self.active = False
            self.loop.abandon()
