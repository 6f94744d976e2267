"""The lifecycle node `policy`: sensor topics in, checked commands out, told by an instruction what to do.

The thin ROS shell round PolicySession. Nothing is published unless the node is active; a Hold sends a zero command and
says why on `~/status` and /diagnostics; the zero command is the last thing sent on the way out. Topics, services and
parameters: docs/ros.md. Here are the lifecycle and the services; what an active node does is in runner.py.
"""

import os
import sys
from collections.abc import Callable

import torch
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common import parameters
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.ros.policy import checkpoint_reloader
from m2distill_policy.ros.policy.controller import PolicyController
from m2distill_policy.ros.policy.inputs import Inputs
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.parameters import GROUPS, ArmParameters, PolicyParameters
from m2distill_policy.ros.policy.status_publisher import StatusPublisher
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.safety.output_parameters import OutputParameters

POLL_PERIOD_S = 0.05  # for what was done in the background
FOLLOW_PERIOD_S = 1.0


class PolicyNode(LifecycleNode):
    def __init__(self):
        super().__init__("policy")
        parameters.declare(self, ArmParameters)
        defaults = load_arm(parameters.read(self, ArmParameters).arm)
        for group in GROUPS:
            parameters.declare(self, group, defaults)
        self.add_post_set_parameters_callback(self._on_parameters)
        self.problem = ""  # why the last transition failed
        self._made = ManagedEntities(self)
        self._runner: PolicyController | None = None
        self._reload: checkpoint_reloader.CheckpointReloader | None = None
        self._finalized = False
        parameters.refuse_changes(self, *GROUPS, why=self._why_settled, free=("checkpoint",))

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure(
                parameters.read(self, PolicyParameters),
                parameters.read(self, OutputParameters),
                parameters.read(self, SafetyLimits),
            )
        except UserError as error:
            self._destroy()
            return self._fail(str(error))
        return super().on_configure(state)

    def _configure(self, settings: PolicyParameters, outputs: OutputParameters, limits: SafetyLimits) -> None:
        if not settings.checkpoint:
            raise UserError("no checkpoint; set the parameter `checkpoint` to a checkpoint's directory")
        torch.set_num_threads(settings.torch_threads)
        active = checkpoint_reloader.load(settings.checkpoint, settings, limits)
        session = PolicySession(active.spec, active.thread, active.instructions, limits, outputs.output == "pose")
        entities, frame_id = self._made, outputs.frame_id or active.spec.action.frame_id
        background = BackgroundExecutor()
        entities.at_destruction(background.end)
        entities.timer(POLL_PERIOD_S, background.poll, always=True)
        self._report = StatusPublisher(entities, frame_id)
        self._runner = runner = PolicyController(
            entities, session, settings, Outputs(entities, outputs, session, frame_id), self._report, background
        )
        self._reload = reloader = checkpoint_reloader.CheckpointReloader(
            session, active, settings, background, self._swapped, self._refused
        )
        self._announce()
        if settings.follow_checkpoint:
            self._target = os.path.realpath(active.path)
            entities.timer(FOLLOW_PERIOD_S, self._follow, always=True)
        self._inputs = Inputs(entities, session, settings.image_transport == "compressed", frame_id, runner.heard)
        entities.subscription(String, "instruction", lambda message: runner.instruct(message.data), 10)
        entities.subscription(Bool, outputs.success_topic, _when_true(runner.succeed), 10)
        entities.subscription(Bool, "operator_active", _when_true(runner.yield_to_operator), 10)
        for name, verb in (
            ("start", runner.start_again),
            ("stop", runner.stop),
            ("pause", runner.pause),
            ("reset_fault", runner.reset_fault),
        ):
            entities.service(f"~/{name}", lambda _, response, verb=verb: self._serve(verb, response, runner.active))
        entities.service("~/rollback", lambda _, response: self._serve(reloader.rollback, response))
        entities.service("~/reload", self._on_reload)
        self.get_logger().info(f"checkpoint {active.checkpoint_id[:12]} knows {len(active.instructions)} instructions")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._runner and self._reload  # configured
        wrong, missing = self._inputs.check()
        if wrong:
            return self._fail(f"the robot is not the one that the checkpoint was trained for: {'; '.join(wrong)}")
        if missing:
            self.get_logger().warning(f"not there yet: {'; '.join(missing)}")
        super().on_activate(state)
        self._reload.active.policy.reseed()
        self._runner.start()
        self._inputs.listening = True
        self._made.start_timers()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._quiesce()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._runner and self._runner.active:
            self._quiesce()
        self._destroy()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """The last command and an orderly end, from whatever state the node is in."""
        if not self._finalized:
            self.trigger_shutdown()

    def _fail(self, problem: str) -> TransitionCallbackReturn:
        self.problem = problem
        self.get_logger().error(problem)
        return TransitionCallbackReturn.FAILURE

    def _quiesce(self) -> None:
        """Stop the runner; the zero command is the last thing sent."""
        assert self._runner  # configured
        self._made.stop_timers()
        self._inputs.listening = False
        self._runner.end()

    def _destroy(self) -> None:
        self._runner = self._reload = None
        self._made.destroy()

    # --- services

    def _serve(self, verb, response: Trigger.Response, active: bool = True) -> Trigger.Response:
        try:
            if not active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = verb(), True
        except UserError as error:
            response.message, response.success = str(error), False
        return response

    async def _on_reload(self, _, response: Trigger.Response) -> Trigger.Response:
        assert self._reload  # configured, like all that is made then
        response.success, response.message = await self._reload.request(self.get_parameter("checkpoint").value)
        return response

    def _why_settled(self) -> str:
        """A limit that acts half a run later than it was set helps nobody."""
        return (
            ""
            if self._runner is None
            else (
                "`configure` has read it and nothing reads it later; deactivate and "
                "clean up the node, set it, and configure it anew"
            )
        )

    def _on_parameters(self, parameters: list[Parameter]) -> None:
        for parameter in parameters:
            if parameter.name == "checkpoint" and self._reload and parameter.value != self._reload.active.path:
                self._reload.request(parameter.value)

    def _follow(self) -> None:
        """A link that moves while it is read is read again afterwards, whatever came of it."""
        assert self._reload
        path = self._reload.active.path
        target = os.path.realpath(path)
        if target != self._target and not self._reload.loading(path):
            self._target = target
            self._reload.request(path)

    def _swapped(self, news: str) -> None:
        self._announce(notice=news)

    def _refused(self, news: str) -> None:
        self.get_logger().error(news)
        self._announce(notice=news)

    def _announce(self, **notice) -> None:
        """Which checkpoint acts: on ~/status, and in the parameter, which a refusal sets back."""
        assert self._reload
        active, previous = self._reload.active, self._reload.previous
        if self.get_parameter("checkpoint").value != active.path:
            self.set_parameters([Parameter("checkpoint", value=active.path)])
        self._report.status(
            checkpoint_id=active.checkpoint_id,
            known_instructions=sorted(active.instructions),
            previous_checkpoint_id=previous.checkpoint_id if previous else "",
            **notice,
        )


def _when_true(verb: Callable[[], None]) -> Callable[[Bool], None]:
    def heard(message: Bool) -> None:
        if message.data:
            verb()

    return heard


def main() -> int:
    return run_node(PolicyNode, lifecycle=True)


if __name__ == "__main__":
    sys.exit(main())
