"""Lifecycle node `policy`: it receives sensor topics and an instruction, and publishes checked commands.

It connects PolicySession to ROS. Nothing is published unless the node is active. A Hold publishes a zero command and
its reason on `~/status` and /diagnostics. The zero command is also the last message before a deactivation. Topics,
services and parameters: docs/ros.md. This module has the lifecycle and the services; `ros/policy/` has the rest.
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from m2distill_policy.bringup.parameters import POLICY_GROUPS, ArmParameters, PolicyParameters
from m2distill_policy.control.session import PolicySession
from m2distill_policy.errors import UserError
from m2distill_policy.robot import pose_frame, robot_from_settings
from m2distill_policy.ros.common import cv_bridge_decoding, parameters
from m2distill_policy.ros.common.background import BackgroundExecutor
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.process import run_node
from m2distill_policy.ros.common.topic_checks import DISCOVERY_S, GraphChanges, other_policies
from m2distill_policy.ros.policy import checkpoint_reloader
from m2distill_policy.ros.policy.checkpoint_reloader import CheckpointReloader
from m2distill_policy.ros.policy.command_server import CommandServer
from m2distill_policy.ros.policy.controller import PolicyController
from m2distill_policy.ros.policy.hand_frames import Frames
from m2distill_policy.ros.policy.inputs import Inputs
from m2distill_policy.ros.policy.outputs import Outputs
from m2distill_policy.ros.policy.status_publisher import StatusPublisher
from m2distill_policy.safety.arm_presets import load_arm
from m2distill_policy.safety.authority import Event
from m2distill_policy.safety.limits import SafetyLimits
from m2distill_policy.safety.output_parameters import OutputParameters

POLL_PERIOD_S = 0.05  # for outcomes of background work
FOLLOW_PERIOD_S = 1.0
NAMES_S = 3.0  # until the graph is settled, and the name of a discovered publisher's node is known
FORGET_S = 25.0  # until DDS forgets a node that was killed


@dataclass
class Configured:
    """Parts of the node that exist from `configure` to `cleanup`."""

    publisher: StatusPublisher
    controller: PolicyController
    reloader: CheckpointReloader
    inputs: Inputs
    outputs: Outputs
    link_target: str  # of the link `checkpoint`, when it was last read


class PolicyNode(LifecycleNode):
    """Lifecycle and services of the policy node."""

    def __init__(self):
        super().__init__("policy")
        parameters.declare(self, ArmParameters)
        self._arm = parameters.read(self, ArmParameters).arm
        defaults = load_arm(self._arm)
        self._robot = robot_from_settings(defaults)
        for group in POLICY_GROUPS:
            parameters.declare(self, group, defaults)
        self.add_post_set_parameters_callback(self._on_parameters)
        self._created_s = time.monotonic()
        self.problem = ""  # why the last transition failed
        self.is_interrupted: Callable[[], bool] = lambda: False  # whether a signal ends the node
        self._entities = ManagedEntities(self)
        self._parts: Configured | None = None
        self._finalized = False
        parameters.reject_changes(self, *POLICY_GROUPS, why=self._why_fixed, free=("checkpoint",))

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

    def _configure(self, settings: PolicyParameters, output: OutputParameters, limits: SafetyLimits) -> None:
        if not settings.checkpoint:
            raise UserError("no checkpoint; set the parameter `checkpoint` to a checkpoint's directory")
        torch.set_num_threads(settings.torch_threads)
        if report := cv_bridge_decoding.bridge().report:
            self.get_logger().info(report)
        active = checkpoint_reloader.load(settings.checkpoint, settings, limits)
        self._robot.check(active.spec, self._arm)
        session = PolicySession(active.spec, active.thread, active.instructions, limits, output.output == "pose")
        entities, frame_id = self._entities, output.frame_id or active.spec.action.frame_id
        pose_frame_id = pose_frame(active.spec, frame_id, limits.has_workspace or output.output == "pose")
        background = BackgroundExecutor()
        entities.at_destruction(background.end)
        entities.timer(POLL_PERIOD_S, background.poll, always=True)
        publisher = StatusPublisher(entities, frame_id)
        outputs = Outputs(entities, output, session, frame_id)
        controller = PolicyController(entities, session, settings, outputs, publisher, background)
        reloader = CheckpointReloader(session, active, settings, background, self._on_swap, self._on_rejection)
        inputs = Inputs(
            entities,
            session,
            settings.image_transport == "compressed",
            Frames(output.base_frame or pose_frame_id, output.ee_frame),
            controller.loop.on_input,
            self._robot.topics,
        )
        controller.loop.part_sources = inputs.sources
        self._parts = Configured(publisher, controller, reloader, inputs, outputs, os.path.realpath(active.path))
        self._announce()
        if settings.follow_checkpoint:
            entities.timer(FOLLOW_PERIOD_S, self._follow_link, always=True)
        self._serve_instructions(controller, output.success_topic)
        entities.service("~/rollback", lambda _, response: self._serve(reloader.rollback, response))
        entities.service("~/reload", self._on_reload)
        self.get_logger().info(f"checkpoint {active.checkpoint_id[:12]} knows {len(active.instructions)} instructions")

    def _serve_instructions(self, controller: PolicyController, success_topic: str) -> None:
        entities, instructions = self._entities, controller.instructions
        entities.subscription(String, "instruction", lambda message: instructions.on_instruction(message.data), 10)
        entities.subscription(Bool, success_topic, _when_true(instructions.succeed), 10)
        entities.subscription(Bool, "operator_active", lambda message: instructions.on_operator(message.data), 10)
        CommandServer(entities, instructions, lambda: controller.active)
        for name, action in (
            ("start", instructions.start_again),
            ("stop", instructions.stop),
            ("pause", instructions.pause),
            ("reset_fault", instructions.reset_fault),
        ):
            entities.service(
                f"~/{name}", lambda _, response, action=action: self._serve(action, response, controller.active)
            )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        assert self._parts  # the node is configured
        wrong, missing = self._parts.inputs.check()
        others = self._wait_for_others()  # after the check, because no input is received while it waits
        if self.is_interrupted():
            return self._fail("interrupted during activation")
        if others:
            return self._fail(
                f"{'; '.join(others)}; one policy moves one arm, so stop the other one or use a namespace"
            )
        if wrong:
            return self._fail(f"the robot does not match the one of the checkpoint: {'; '.join(wrong)}")
        if missing:
            self.get_logger().warning(f"not available yet: {'; '.join(missing)}")
        super().on_activate(state)
        self._parts.reloader.active.policy.reseed()
        self._parts.controller.start()
        self._parts.inputs.listening = True
        self._entities.start_timers()
        return TransitionCallbackReturn.SUCCESS

    def _wait_for_others(self) -> list[str]:
        """Return the other policies on our topics. At an autostart, one that was killed may be listed for a while."""
        assert self._parts  # the node is configured
        topic = self._parts.outputs.topic
        self._sleep_while(lambda: True, self._created_s + DISCOVERY_S)
        graph = GraphChanges(self)
        self._sleep_while(lambda: not graph.is_settled(topic), time.monotonic() + NAMES_S)
        deadline_s = time.monotonic() + (FORGET_S if self.get_parameter("autostart").value else 0.0)
        others: list[str] = []

        def found() -> bool:
            nonlocal others
            if others := other_policies(self._entities, topic):
                self.get_logger().warning(f"waiting: {'; '.join(others)}", throttle_duration_sec=FORGET_S)
            return bool(others)

        self._sleep_while(found, deadline_s)
        return others

    def _sleep_while(self, condition: Callable[[], bool], deadline_s: float) -> None:
        """Sleep while the condition holds, until the deadline or a signal."""
        while condition() and time.monotonic() < deadline_s and not self.is_interrupted():
            time.sleep(POLL_PERIOD_S)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._end_run()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._parts and self._parts.controller.active:
            self._end_run()
        self._destroy()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Publish the last command and shut down, from any state of the lifecycle."""
        if not self._finalized:
            self.trigger_shutdown()

    def suspend(self) -> None:
        """Stop the arm and end the order before the process is stopped: nothing moves when it is continued."""
        if self._parts and self._parts.controller.active:
            self._parts.controller.instructions.stop()
            self._parts.outputs.flush()
            self.get_logger().warning("suspended; the arm is stopped, and its instruction has ended")

    def resume(self) -> None:
        """Do nothing: the arm waits for an order."""

    def _fail(self, problem: str) -> TransitionCallbackReturn:
        self.problem = problem
        self.get_logger().error(problem)
        return TransitionCallbackReturn.FAILURE

    def _end_run(self) -> None:
        """Stop acting; the zero command is the last message published."""
        assert self._parts  # the node is configured
        self._entities.stop_timers()
        self._parts.inputs.listening = False
        self._parts.controller.end()

    def _destroy(self) -> None:
        self._parts = None
        self._entities.destroy()

    # --- services and parameters

    def _serve(self, action: Callable[[], str], response: Trigger.Response, active: bool = True) -> Trigger.Response:
        try:
            if not active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = action(), True
        except UserError as error:
            response.message, response.success = str(error), False
        return response

    async def _on_reload(self, _, response: Trigger.Response) -> Trigger.Response:
        assert self._parts  # the node is configured
        request = self._parts.reloader.request(parameters.read(self, PolicyParameters).checkpoint)
        response.success, response.message = await request
        return response

    def _why_fixed(self) -> str:
        """Return why parameters cannot change while the node is configured."""
        if self._parts is None:
            return ""
        return (
            "it is read by `configure` only; deactivate and clean up the node, set the parameter, and configure the "
            "node again"
        )

    def _on_parameters(self, changed: list[Parameter]) -> None:
        if self._parts and any(parameter.name == "checkpoint" for parameter in changed):
            path = parameters.read(self, PolicyParameters).checkpoint
            if path != self._parts.reloader.active.path:
                self._parts.reloader.request(path)

    def _follow_link(self) -> None:
        """Reload if the link `checkpoint` has another target; a change during a reload is handled afterwards."""
        assert self._parts  # the node is configured
        path = self._parts.reloader.active.path
        target = os.path.realpath(path)
        if target != self._parts.link_target and not self._parts.reloader.loading(path):
            self._parts.link_target = target
            self._parts.reloader.request(path)

    def _on_swap(self, line: str) -> None:
        assert self._parts  # the node is configured
        self._parts.controller.authority.apply(Event.SWAP)
        self._announce(notice=line)

    def _on_rejection(self, line: str) -> None:
        self.get_logger().error(line)
        self._announce(notice=line)

    def _announce(self, **notice) -> None:
        """Publish the active checkpoint on ~/status and set the parameter to it, also after a rejection."""
        assert self._parts  # the node is configured
        active, previous = self._parts.reloader.active, self._parts.reloader.previous
        if self.get_parameter("checkpoint").value != active.path:
            self.set_parameters([Parameter("checkpoint", value=active.path)])
        self._parts.publisher.status(
            checkpoint_id=active.checkpoint_id,
            known_instructions=sorted(active.instructions),
            previous_checkpoint_id=previous.checkpoint_id if previous else "",
            **notice,
        )


def _when_true(action: Callable[[], None]) -> Callable[[Bool], None]:
    def on_message(message: Bool) -> None:
        if message.data:
            action()

    return on_message


def main() -> int:
    """Run the node; return the exit status."""
    return run_node(PolicyNode, lifecycle=True)


if __name__ == "__main__":
    sys.exit(main())
