"""The lifecycle node `policy`: sensor topics in, checked commands out, told by an instruction what to do.

The thin ROS shell round PolicySession. Nothing is published unless the node is active; a Hold sends a zero twist and
says why on `~/status` and /diagnostics; the zero twist is the last thing sent on the way out. Topics, services and
parameters: docs/ros.md.

Pacing `real_time` acts at the spec's rate by the steady clock. Pacing `lockstep` acts once for each complete set of
inputs with one stamp, and answers a repeated set with the same command, so a simulator may wait for it.
"""

import contextlib
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from m2distill_interfaces.action import ExecuteInstruction
from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_policy.action import Command, Hold
from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.inference import LoadedPolicy
from m2distill_policy.ros import messages, params
from m2distill_policy.ros.diagnostics import InputMonitor, diagnostics
from m2distill_policy.ros.execute import ExecuteServer
from m2distill_policy.ros.policy_parameters import PolicyParameters
from m2distill_policy.ros.process import run_node
from m2distill_policy.session import PolicySession

Ended = ExecuteInstruction.Result
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
DIAGNOSTICS_PERIOD_S = 1.0
SUPERVISION_PERIOD_S = 0.05
RESEND_AFTER_S = 0.4  # lockstep: an observation repeated sooner has crossed with its answer
ZERO = np.zeros(3)


def best_effort(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.BEST_EFFORT)


class PolicyNode(LifecycleNode):
    def __init__(self):
        super().__init__("policy")
        params.declare(self, PolicyParameters)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # goes on when the simulation's clock stands still
        self._active = self._finalized = False
        self.problem = ""  # why the last `configure` failed
        self._teardown = []  # undoes what configure made, last first

    # --- lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._settings = parameters = params.read(self, PolicyParameters)
            if not parameters.checkpoint:
                raise UserError("no checkpoint; set the parameter `checkpoint` to a checkpoint's directory")
            torch.set_num_threads(parameters.torch_threads)
            checkpoint = load_checkpoint(Path(parameters.checkpoint))
            policy = LoadedPolicy(checkpoint, parameters.acting, parameters.seed)
        except UserError as error:
            self.problem = str(error)
            self.get_logger().error(self.problem)
            return TransitionCallbackReturn.FAILURE
        self._session = PolicySession(checkpoint.spec, policy, checkpoint.instructions, parameters.limits)
        self._checkpoint_id = checkpoint.id
        self._inputs = [stream.name for stream in self._session.streams]
        self._create_outputs(sorted(checkpoint.instructions))
        self._create_inputs()
        self.get_logger().info(f"checkpoint {checkpoint.id[:12]} knows {len(checkpoint.instructions)} instructions")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        self._monitor = InputMonitor(self._inputs, round(self._settings.watchdog_s * 1e9))
        self._session.reset()
        self._stamps: dict[str, int] = {}  # lockstep: of the inputs heard since the last complete set
        self._complete_ns: int | None = None  # lockstep: stamp of the last complete set
        self._answer: tuple[Command, list] | None = None  # last command, and the (publisher, message) pairs it became
        self._hold_reason = self._last_instruction = ""
        self._paused = False
        self._active = True
        self._hold("no instruction")
        for timer in self._timers_of_ours:
            timer.reset()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._quiesce()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._active:
            self._quiesce()
        self._destroy()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._active = False
        self._destroy()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """The last command and an orderly end, from whatever state the node is in."""
        if not self._finalized:
            self.trigger_shutdown()

    def _quiesce(self) -> None:
        """Stop the runner; the zero command is the last thing sent."""
        for timer in self._timers_of_ours:
            timer.cancel()
        self._execute.finish(Ended.DEACTIVATED, "the node was deactivated")
        self._session.stop()
        self._hold_reason = "not active"
        self._publish_status()
        self._twist_pub.publish(self._zero_twist())
        self._active = False

    def _create_outputs(self, known_instructions: list[str]) -> None:
        def publisher(kind, topic, qos):
            made = self.create_lifecycle_publisher(kind, topic, qos)
            self._teardown.append(lambda: self.destroy_lifecycle_publisher(made))
            return made

        self._gripper_pub = publisher(Float64, "gripper_cmd", 10)
        self._action_pub = publisher(PolicyAction, "~/action", 10)
        self._twist_pub = publisher(TwistStamped, "twist_cmd", 10)
        self._status_pub = publisher(PolicyStatus, "~/status", LATCHED)
        self._diagnostics_pub = publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = PolicyStatus(known_instructions=known_instructions, checkpoint_id=self._checkpoint_id)

    def _create_inputs(self) -> None:
        def subscribe(kind, topic, callback, qos):
            made = self.create_subscription(kind, topic, callback, qos)
            self._teardown.append(lambda: self.destroy_subscription(made))

        def serve(name, callback):
            made = self.create_service(Trigger, name, callback)
            self._teardown.append(lambda: self.destroy_service(made))

        compressed = self._settings.image_transport == "compressed"
        kind, suffix = (CompressedImage, "/compressed") if compressed else (Image, "")
        for camera in self._session.spec.cameras:
            subscribe(kind, f"{camera.name}/image_raw{suffix}",
                      lambda message, name=camera.name: self._on_image(name, message), best_effort(1))
        subscribe(JointState, "joint_states", self._on_joints, best_effort(5))
        subscribe(String, "instruction", self._on_instruction, 10)
        for name, verb in (("start", self._start), ("stop", self._stop), ("pause", self._pause),
                           ("reset_fault", self._reset_fault)):
            serve(f"~/{name}", lambda _, response, verb=verb: self._serve(verb, response))
        self._execute = ExecuteServer(self, lambda: self._active, self._follow, self._halt)
        self._teardown.append(self._execute.destroy)

        control = {"real_time": [(self._session.spec.period_ns * 1e-9, self._act_by_the_clock)], "lockstep": []}
        self._timers_of_ours = []
        for period_s, callback in [(SUPERVISION_PERIOD_S, self._supervise), (DIAGNOSTICS_PERIOD_S, self._diagnose),
                                   *control[self._settings.pacing]]:
            timer = self.create_timer(period_s, callback, clock=self._steady, autostart=False)
            self._timers_of_ours.append(timer)
            self._teardown.append(lambda timer=timer: self.destroy_timer(timer))

    def _destroy(self) -> None:
        while self._teardown:
            self._teardown.pop()()

    # --- inputs

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        if not self._active:
            return
        stamp_ns = messages.stamp_to_ns(message.header.stamp)
        decode = messages.image_to_numpy if isinstance(message, Image) else messages.compressed_image_to_numpy
        try:
            self._session.observe_image(camera, decode(message), stamp_ns)
        except messages.MessageError as error:
            self._session.reject_input(camera, str(error))
        self._heard(camera, stamp_ns)

    def _on_joints(self, message: JointState) -> None:
        if not self._active:
            return
        stamp_ns = messages.stamp_to_ns(message.header.stamp)
        self._session.observe_joints(message.name, message.position, stamp_ns)
        self._heard("joint_states", stamp_ns)

    def _heard(self, name: str, stamp_ns: int) -> None:
        self._monitor.heard(name, self._steady.now().nanoseconds)
        if self._settings.pacing == "lockstep":
            self._stamps[name] = stamp_ns
            if len(self._stamps) == len(self._inputs) and len(set(self._stamps.values())) == 1:
                self._stamps = {}
                self._complete_ns = stamp_ns
                self._act_in_lockstep()

    def _on_instruction(self, message: String) -> None:
        if not self._active:
            self.get_logger().warning(f"instruction {message.data!r} passed over: the node is not active")
        elif not message.data.strip():
            self._stop()
        else:
            self._execute.finish(Ended.SUPERSEDED, f"superseded by the instruction {message.data!r}")
            with contextlib.suppress(UserError):  # told on ~/status by _follow
                self._follow(message.data)

    # --- what it is told to do; each verb returns what it did

    def _follow(self, instruction: str) -> None:
        """Start on an instruction with an empty history. Raises UserError, holding, when it is not known."""
        try:
            self._session.set_instruction(instruction)
        except UserError as error:
            self._halt(str(error))
            self.get_logger().warning(str(error))
            raise
        self._last_instruction = self._session.instruction
        self._paused = False
        self._hold("waiting for the next observation")
        answered_ns = self._answer[0].stamp_ns if self._answer else None
        if self._complete_ns not in (None, answered_ns):  # lockstep: the simulator already waits
            self._act_in_lockstep()

    def _halt(self, notice: str) -> None:
        self._session.stop()
        self._paused = False
        self._hold(notice)

    def _serve(self, verb, response: Trigger.Response) -> Trigger.Response:
        try:
            if not self._active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = verb(), True
        except UserError as error:
            response.message, response.success = str(error), False
        return response

    def _start(self) -> str:
        if not self._last_instruction:
            raise UserError("no instruction yet; send one on the topic `instruction`")
        self._follow(self._last_instruction)
        return f"following {self._last_instruction!r}"

    def _stop(self) -> str:
        self._execute.finish(Ended.STOPPED, "stopped")
        self._halt("stopped")
        return "stopped"

    def _pause(self) -> str:
        if not self._session.instruction:
            raise UserError("nothing to pause: no instruction is followed")
        self._session.stop()
        self._paused = True
        self._hold("paused")
        return "paused; ~/start goes on"

    def _reset_fault(self) -> str:
        fault = self._session.fault
        self._session.reset_fault()
        self._hold("waiting for the next observation" if self._session.instruction else "no instruction")
        return f"cleared: {fault}" if fault else "there was no fault"

    # --- control

    def _act_by_the_clock(self) -> None:
        silence = self._monitor.silence(self._steady.now().nanoseconds)
        if self._session.instruction and silence:
            self._session.reset()  # what comes after it is not a continuation
            self._hold(silence)
        else:
            self._act(self.get_clock().now().nanoseconds)

    def _act_in_lockstep(self) -> None:
        stamp_ns = self._complete_ns
        if self._answer is not None:
            command, answer = self._answer
            if stamp_ns == command.stamp_ns:
                if time.monotonic() - self._answered_s > RESEND_AFTER_S:  # the simulator missed it
                    self._send(answer)
                return
            if self._session.instruction and stamp_ns - command.stamp_ns != self._session.spec.period_ns:
                self._session.set_instruction(self._session.instruction)  # a step is missing: begin a new history
        self._act(stamp_ns)

    def _act(self, now_ns: int) -> None:
        if not self._session.instruction and not self._session.fault:
            return  # idle or paused: the reason is told already
        started_s = time.perf_counter()
        try:
            outcome = self._session.tick(now_ns)
        except Exception:  # a defect of ours must not leave the last command standing
            self.get_logger().fatal(traceback.format_exc())
            self._session.fault = "internal error; the log has the details"
            outcome = Hold(self._session.fault)
        if isinstance(outcome, Hold):
            self._hold(outcome.reason)
            if self._session.fault:
                self._execute.finish(Ended.FAULT, self._session.fault)
            return
        self._monitor.stepped(time.perf_counter() - started_s)
        self._execute.count_step()
        self._command(outcome)
        self._hold_reason = ""
        self._publish_status()

    def _command(self, command: Command) -> None:
        """Encode everything, then publish. The twist goes last: its stamp completes the command."""
        frame_id = self._session.spec.action.frame_id
        sample = command.sample
        action = PolicyAction(action=sample.action, mode=sample.mode, log_prob=sample.log_prob, entropy=sample.entropy,
                              instruction=self._session.instruction, checkpoint_id=self._checkpoint_id)
        action.header.stamp = messages.stamp_from_ns(command.stamp_ns)
        action.header.frame_id = frame_id
        twist = messages.twist_from_numpy(command.linear_m_s, command.angular_rad_s, command.stamp_ns, frame_id)
        answer = [(self._gripper_pub, Float64(data=command.gripper_width_m)), (self._twist_pub, twist)]
        self._answer = (command, answer)
        self._action_pub.publish(action)
        self._send(answer)

    def _send(self, answer: list) -> None:
        self._answered_s = time.monotonic()
        for publisher, message in answer:
            publisher.publish(message)

    def _hold(self, reason: str) -> None:
        """A zero twist: at every step while there is an instruction, else once, when the reason changes."""
        if self._session.instruction or reason != self._hold_reason:
            self._twist_pub.publish(self._zero_twist())
        self._hold_reason = reason
        self._publish_status()

    def _zero_twist(self) -> TwistStamped:
        return messages.twist_from_numpy(ZERO, ZERO, self.get_clock().now().nanoseconds,
                                         self._session.spec.action.frame_id)

    # --- supervision

    def _supervise(self) -> None:
        silence = self._monitor.silence(self._steady.now().nanoseconds)
        if self._settings.pacing == "lockstep" and self._session.instruction and silence:
            self._hold(silence)
        self._execute.poll(self._hold_reason)

    def _diagnose(self) -> None:
        self._diagnostics_pub.publish(diagnostics(
            self.get_fully_qualified_name(), self._status, self._monitor.report(DIAGNOSTICS_PERIOD_S),
            self.get_clock().now().to_msg()))

    def _publish_status(self) -> None:
        """Tell ~/status, when something has changed."""
        session = self._session
        if session.fault:
            state = PolicyStatus.FAULT
        elif self._paused:
            state = PolicyStatus.PAUSED
        elif not session.instruction:
            state = PolicyStatus.IDLE
        else:
            state = PolicyStatus.HOLDING if self._hold_reason else PolicyStatus.RUNNING
        instruction = self._last_instruction if self._paused else session.instruction
        news = (state, session.fault or self._hold_reason, instruction)
        if news != (self._status.state, self._status.reason, self._status.instruction):
            self._status.state, self._status.reason, self._status.instruction = news
            self._status.stamp = self.get_clock().now().to_msg()
            self._status_pub.publish(self._status)
            self.get_logger().info(f"{instruction!r}: {self._status.reason or 'running'}")


def make_node() -> PolicyNode:
    node = PolicyNode()
    if node.get_parameter("autostart").value:
        success = TransitionCallbackReturn.SUCCESS
        if node.trigger_configure() != success or node.trigger_activate() != success:
            raise UserError(node.problem or "the node could not start; the lines above say why")
    return node


def main() -> int:
    return run_node(make_node)


if __name__ == "__main__":
    sys.exit(main())
