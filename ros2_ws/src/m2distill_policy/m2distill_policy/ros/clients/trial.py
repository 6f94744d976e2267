"""ROS client that runs trials of a running policy in a running simulator and counts the successes.

    python -m m2distill_policy.ros.clients.trial --suite libero_object --tasks 0 1 --initial-states 40 --out trials.json

For every task and initial state it resets the simulator, sends the task's instruction to `policy/command`, and
waits for success or the end of the episode. It prints one JSON object per trial and writes all of them to --out. It is
an ordinary ROS 2 client: a dashboard can do the same.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import rclpy
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.task import Future
from std_msgs.msg import Bool, UInt32
from std_srvs.srv import Trigger

from m2distill_interfaces.msg import PolicyAction, PolicyStatus
from m2distill_interfaces.srv import Command
from m2distill_policy.errors import UserError
from m2distill_policy.ros.clients.client_node import ClientNode, CommandClient
from m2distill_policy.ros.common.conversions import LATCHED
from m2distill_policy.ros.common.process import run_client
from m2distill_policy.suites import DEFAULT_SUITE
from m2distill_policy.utils.files import write_atomically
from m2distill_policy.utils.schema import with_schema

START_TIMEOUT_S = 90.0  # until both nodes have started
CALL_TIMEOUT_S = 60.0  # for a reset, which builds another scene for another task
RESEND_S = 20.0  # after which a request is repeated
SILENCE_TIMEOUT_S = 30.0  # without an action of the policy, after which a trial fails


class TrialClient(ClientNode):
    """Client of one simulator and one policy, both with relative names."""

    def __init__(self):
        super().__init__("trial_client")
        self._status = PolicyStatus()  # a received one has a checkpoint_id
        self._success = self._over = False
        self._steps: int | None = None  # of the episode, published by the simulator at its end
        self._last_action_s = 0.0
        self.create_subscription(PolicyStatus, "policy/status", self._on_status, LATCHED)
        self.create_subscription(Bool, "sim/success", self._on_success, LATCHED)
        self.create_subscription(Bool, "sim/episode_over", self._on_over, LATCHED)
        self.create_subscription(UInt32, "sim/steps", self._on_steps, LATCHED)
        self.create_subscription(PolicyAction, "policy/action", self._on_action, 100)
        self._command = CommandClient(self)
        self._sim_parameters = AsyncParameterClient(self, "sim")
        self._reset = self.create_client(Trigger, "sim/reset")

    def wait_until_ready(self) -> None:
        """Wait until both nodes have started. Raises UserError."""
        self.wait(self._is_ready, "the nodes `sim` and `policy`", START_TIMEOUT_S)
        self.one_server(self._command.service)

    def _is_ready(self) -> bool:
        return bool(
            self._status.checkpoint_id
            and self._command.is_ready()
            and self._reset.service_is_ready()
            and self._sim_parameters.services_are_ready()
        )

    def trial(self, suite: str, task: int, initial_state: int, video: Path | None) -> dict:
        """Run one episode; return task, initial_state, instruction, success, steps and the video's path or None."""
        self._instruct("")  # the policy stops before the scene changes
        self._set({"suite": suite, "task": task, "initial_state": initial_state, "video": str(video or "")})
        self._success = self._over = False
        self._steps, self._last_action_s = None, time.monotonic()
        instruction = self._reset_simulator()
        self._instruct(instruction)
        while not self.wait_until(lambda: (self._success or self._over) and self._steps is not None, 1.0):
            if time.monotonic() - self._last_action_s > SILENCE_TIMEOUT_S:
                raise UserError(f"no action for {SILENCE_TIMEOUT_S:.0f} s; the policy's reason: {self._status.reason}")
        return {
            "task": task,
            "initial_state": initial_state,
            "instruction": instruction,
            "success": self._success,
            "steps": self._steps,
            "video": str(video) if video else None,
        }

    def finish(self) -> None:
        """Stop the policy and end the last episode, so that its video is written."""
        self._instruct("")
        self._set({"video": ""})
        self._reset_simulator()

    # --- received messages

    def _on_status(self, message: PolicyStatus) -> None:
        self._status = message

    def _on_success(self, message: Bool) -> None:
        self._success = message.data

    def _on_over(self, message: Bool) -> None:
        self._over = message.data

    def _on_steps(self, message: UInt32) -> None:
        self._steps = message.data

    def _on_action(self, message: PolicyAction) -> None:
        self._last_action_s = time.monotonic()

    # --- requests

    def _instruct(self, instruction: str) -> None:
        """Request to follow an instruction, or with an empty one to stop. Raises UserError if it is rejected."""
        command = Command.Request.INSTRUCT if instruction else Command.Request.STOP
        answer = self._command.send(command, instruction, CALL_TIMEOUT_S)
        if not answer.accepted:
            raise UserError(f"the policy does not follow {instruction!r}: {answer.message}")

    def _set(self, values: dict) -> None:
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        answer = self._request(lambda: self._sim_parameters.set_parameters(parameters), "its parameters")
        rejected = [result.reason for result in answer.results if not result.successful]
        if rejected:
            raise UserError(f"the simulator rejected {values}: {'; '.join(rejected)}")

    def _reset_simulator(self) -> str:
        """Reset the simulator and return the instruction of the task."""
        answer = self._request(lambda: self._reset.call_async(Trigger.Request()), "a reset")
        if not answer.success:
            raise UserError(answer.message)
        return answer.message

    def _request(self, send: Callable[[], Future], what: str):
        """Return the simulator's response. The request is repeated, because it can be lost on a busy machine."""
        asked: list[Future] = []
        begun_s = time.monotonic()

        def answered() -> bool:
            if time.monotonic() - begun_s >= RESEND_S * len(asked):
                asked.append(send())
            return any(future.done() for future in asked)

        self.wait(answered, f"the simulator's answer to {what}", CALL_TIMEOUT_S)
        return next(future.result() for future in asked if future.done())


def run_trials(
    trial_client: TrialClient,
    suite: str,
    tasks: list[int],
    initial_states: list[int],
    out: Path,
    video_dir: Path | None,
) -> None:
    """Run all trials and print each result; write the file `out` at the end."""
    results = []
    trial_client.wait_until_ready()
    for task in tasks:
        for initial_state in initial_states:
            first = initial_state == initial_states[0]
            video = video_dir / f"task{task}_state{initial_state}.mp4" if video_dir and first else None
            results.append(trial_client.trial(suite, task, initial_state, video))
            print(json.dumps(results[-1]), flush=True)
    trial_client.finish()
    write_atomically(out, json.dumps(with_schema(results), indent=2).encode())


def main() -> int:
    """Run the client; return the exit status."""
    parser = argparse.ArgumentParser(prog="trial", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default=DEFAULT_SUITE)
    parser.add_argument("--tasks", type=int, nargs="+", required=True, help="indices within the suite")
    parser.add_argument("--initial-states", type=int, nargs="+", required=True, help="indices, the same for every task")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--video-dir", type=Path, help="folder for an mp4 of each task's first episode")
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    return run_client(
        TrialClient,
        lambda trial_client: run_trials(
            trial_client, options.suite, options.tasks, options.initial_states, options.out, options.video_dir
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
