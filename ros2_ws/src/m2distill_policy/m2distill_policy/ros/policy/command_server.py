"""Service `~/command`: instruct, start, stop and pause, answered with what was done to this request.

A client repeats a request that was not answered. The repetition has the same id, gets the first answer, and changes
nothing.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from rclpy.task import Future

from m2distill_interfaces.srv import Command
from m2distill_policy.errors import UserError
from m2distill_policy.ros.common.managed_entities import ManagedEntities
from m2distill_policy.ros.common.topic_checks import policies
from m2distill_policy.ros.policy.instruction_handler import InstructionHandler

REMEMBERED = 1000  # requests whose answers are kept


class CommandServer:
    """Server of one policy node.

    Args:
        entities: Entities of the node.
        handler: Handler of the commands.
        is_active: Function that returns whether the node is active.
    """

    def __init__(self, entities: ManagedEntities, handler: InstructionHandler, is_active: Callable[[], bool]):
        self._node, self._handler, self._is_active = entities.node, handler, is_active
        self._answers: OrderedDict[str, Future] = OrderedDict()
        entities.service("~/command", self._on_request, Command)

    async def _on_request(self, request: Command.Request, response: Command.Response) -> Command.Response:
        answer = self._answers.get(request.request_id)
        if answer is None:
            answer = self._do(request)
            if request.request_id:
                self._answers[request.request_id] = answer
                if len(self._answers) > REMEMBERED:
                    self._answers.popitem(last=False)
        response.accepted, response.message = await answer
        response.state = self._handler.state
        response.instruction = self._handler.followed
        response.policies = policies(self._node)
        return response

    def _do(self, request: Command.Request) -> Future:
        """Carry out a new request; the result of the future is (accepted, message)."""
        starts = request.command in (Command.Request.INSTRUCT, Command.Request.START)
        expires_s = request.expires.sec + 1e-9 * request.expires.nanosec
        if request.command == Command.Request.STOP and not self._is_active():
            return _done(True, "the node is not active; nothing moves")
        if not self._is_active():
            return _done(False, "the node is not active; activate it first")
        if starts and expires_s and time.time() > expires_s:
            late = f"the request expired {time.time() - expires_s:.1f} s ago, by the wall clock of this machine"
            return _done(False, f"{late}; send it again")
        if request.command == Command.Request.INSTRUCT:
            return self._handler.request(request.instruction)
        action = {
            Command.Request.START: self._handler.start_again,
            Command.Request.STOP: self._handler.stop,
            Command.Request.PAUSE: self._handler.pause,
        }.get(request.command)
        if action is None:
            return _done(False, f"command is {request.command}, expected 1 to 4: INSTRUCT, START, STOP or PAUSE")
        try:
            return _done(True, action())
        except UserError as error:
            return _done(False, str(error))


def _done(accepted: bool, message: str) -> Future:
    future = Future()
    future.set_result((accepted, message))
    return future
