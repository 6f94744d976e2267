"""The lifecycle node `policy`: sensor topics in, checked commands out, told by an instruction what to do.

The thin ROS shell round PolicySession. Nothing is published unless the node is active; a Hold sends a zero twist and
says why on `~/status` and /diagnostics; the zero twist is the last thing sent on the way out. Topics, services and
parameters: docs/ros.md. Here is the lifecycle; what an active node does is in runner.py.
"""

import sys
from pathlib import Path

import torch
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String
from std_srvs.srv import Trigger

from m2distill_policy.checkpoint import load_checkpoint
from m2distill_policy.errors import UserError
from m2distill_policy.inference import LoadedPolicy
from m2distill_policy.ros import params
from m2distill_policy.ros.inputs import Inputs
from m2distill_policy.ros.made import Made
from m2distill_policy.ros.outputs import Outputs
from m2distill_policy.ros.policy_parameters import PolicyParameters
from m2distill_policy.ros.process import run_node
from m2distill_policy.ros.report import Report
from m2distill_policy.ros.runner import Runner
from m2distill_policy.session import PolicySession


class PolicyNode(LifecycleNode):
    def __init__(self):
        super().__init__("policy")
        params.declare(self, PolicyParameters)
        self.problem = ""  # why the last `configure` failed
        self._made = Made(self)
        self._runner: Runner | None = None
        self._finalized = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._configure(params.read(self, PolicyParameters))
        except UserError as error:
            self.problem = str(error)
            self.get_logger().error(self.problem)
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def _configure(self, settings: PolicyParameters) -> None:
        if not settings.checkpoint:
            raise UserError("no checkpoint; set the parameter `checkpoint` to a checkpoint's directory")
        torch.set_num_threads(settings.torch_threads)
        checkpoint = load_checkpoint(Path(settings.checkpoint))
        policy = LoadedPolicy(checkpoint, settings.acting, settings.seed)
        session = PolicySession(checkpoint.spec, policy, checkpoint.instructions, settings.limits)
        made, frame_id = self._made, checkpoint.spec.action.frame_id
        self._runner = runner = Runner(made, session, settings, Outputs(made, frame_id),
                                       Report(made, frame_id, sorted(checkpoint.instructions), checkpoint.id))
        self._inputs = Inputs(made, session, settings.image_transport == "compressed", runner.heard)
        made.subscription(String, "instruction", lambda message: runner.instruct(message.data), 10)
        for name, verb in (("start", runner.start_again), ("stop", runner.stop), ("pause", runner.pause),
                           ("reset_fault", runner.reset_fault)):
            made.service(f"~/{name}", lambda _, response, verb=verb: self._serve(verb, response))
        self.get_logger().info(f"checkpoint {checkpoint.id[:12]} knows {len(checkpoint.instructions)} instructions")

    def _serve(self, verb, response: Trigger.Response) -> Trigger.Response:
        try:
            if not self._runner.active:
                raise UserError("the node is not active; activate it first")
            response.message, response.success = verb(), True
        except UserError as error:
            response.message, response.success = str(error), False
        return response

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
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

    def _quiesce(self) -> None:
        """Stop the runner; the zero command is the last thing sent."""
        self._made.stop_timers()
        self._inputs.listening = False
        self._runner.end()

    def _destroy(self) -> None:
        self._runner = None
        self._made.destroy()


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
