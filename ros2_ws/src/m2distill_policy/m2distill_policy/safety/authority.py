"""Who may move the arm: the table of every event against every state, and the only code that changes the state.

Operator > stop, pause and fault > goal > instruction. A higher rank interrupts a lower one at any time; a lower one
never interrupts a higher one. The policy may move the arm only in RUNNING and HOLDING, and only for a live order: an
instruction or a goal that was accepted and has not ended since. No ROS, clock or torch here.
"""

from dataclasses import dataclass
from enum import Enum, auto

from m2distill_policy.language.instruction_text import normalise


class State(Enum):
    """State of the policy node. SILENT is an OPERATOR from whom nothing has arrived for some time."""

    IDLE = auto()
    HOLDING = auto()
    RUNNING = auto()
    PAUSED = auto()
    OPERATOR = auto()
    SILENT = auto()
    FAULT = auto()


class Event(Enum):
    """All that can change the state, or must not."""

    INSTRUCTION = auto()  # another text on the topic, or any text of a request
    INSTRUCTION_DURING_GOAL = auto()  # the same while a goal has the arm
    REPEATED_INSTRUCTION = auto()  # the text that is followed, or that the topic carried last
    START = auto()
    STOP = auto()
    PAUSE = auto()
    EXECUTE = auto()  # a goal of ~/execute
    CANCEL = auto()  # of the goal
    SUCCESS = auto()  # of the goal
    TIME_LIMIT = auto()  # of the goal
    UNKNOWN = auto()  # the text of the order matches no instruction of the checkpoint
    TAKEOVER = auto()  # the operator moves the arm; repeated while it does
    SILENCE = auto()  # nothing has arrived from the operator for some time
    RELEASE = auto()  # the operator releases the arm
    FAULT = auto()
    RESET = auto()  # of the fault
    RELOAD = auto()  # a checkpoint is loaded beside the active one
    SWAP = auto()  # a checkpoint replaces the active one
    DEACTIVATE = auto()
    COMMAND = auto()  # the policy has commanded a motion
    HOLD = auto()  # the policy holds: an input is missing, stale or invalid, or it is late


class Effect(Enum):
    """What a cell of the table does to the order."""

    KEEP = auto()
    BEGIN = auto()  # the new order replaces the old one
    RESUME = auto()  # the suspended order continues, or the last one begins again
    END = auto()


@dataclass(frozen=True)
class Cell:
    """Response to an event in a state; `to` None: back to the state beneath the operator's."""

    to: State | None
    effect: Effect = Effect.KEEP
    accepted: bool = True
    message: str = ""


STATES = tuple(State)
IDLE, HOLDING, RUNNING, PAUSED, OPERATOR, SILENT, FAULT = STATES
BENEATH = None
HAS_ARM = "the operator has the arm"
NO_REPETITION = "it is repeated, which starts nothing; call ~/start or send another text"
NO_GOAL_IN_PAUSE = "the policy is paused; call ~/start, or ~/stop first"
RESET_FIRST = "a fault is latched; call ~/reset_fault first"
SILENT_OPERATOR = "the operator has the arm and is silent; call ~/start or ~/stop to take it back"
RELEASED = "the operator has released the arm; call ~/start to continue"
GOAL_FIRST = "a goal has the arm; cancel it or call ~/stop first"


def _row(*cells: Cell) -> dict[State, Cell]:
    return dict(zip(STATES, cells, strict=True))


def _stay(message: str = "", effect: Effect = Effect.KEEP, accepted: bool = True) -> dict[State, Cell]:
    """Return a row of cells that keep the state."""
    return {state: Cell(state, effect, accepted, message) for state in STATES}


def _reject(state: State, message: str) -> Cell:
    return Cell(state, accepted=False, message=message)


def _end_of_goal() -> dict[State, Cell]:
    """Return the row of an event that ends the goal; without a goal it is not applied. A pause outlives the goal."""
    end = Effect.END
    return _stay(effect=end) | {HOLDING: Cell(IDLE, end), RUNNING: Cell(IDLE, end)}


TABLE: dict[Event, dict[State, Cell]] = {
    Event.INSTRUCTION: _row(
        Cell(HOLDING, Effect.BEGIN, message="following"),
        Cell(HOLDING, Effect.BEGIN, message="following"),
        Cell(HOLDING, Effect.BEGIN, message="following"),
        Cell(HOLDING, Effect.BEGIN, message="following"),
        _reject(OPERATOR, HAS_ARM),
        _reject(SILENT, SILENT_OPERATOR),
        _reject(FAULT, RESET_FIRST),
    ),
    Event.INSTRUCTION_DURING_GOAL: _stay(GOAL_FIRST, accepted=False)
    | {OPERATOR: _reject(OPERATOR, HAS_ARM), SILENT: _reject(SILENT, SILENT_OPERATOR)},
    Event.REPEATED_INSTRUCTION: _row(
        _reject(IDLE, NO_REPETITION),
        Cell(HOLDING, message="already following"),
        Cell(RUNNING, message="already following"),
        _reject(PAUSED, NO_REPETITION),
        _reject(OPERATOR, HAS_ARM),
        _reject(SILENT, SILENT_OPERATOR),
        _reject(FAULT, RESET_FIRST),
    ),
    Event.START: _row(
        Cell(HOLDING, Effect.RESUME, message="following"),
        Cell(HOLDING, message="already following"),
        Cell(RUNNING, message="already following"),
        Cell(HOLDING, Effect.RESUME, message="following"),
        _reject(OPERATOR, HAS_ARM),
        Cell(HOLDING, Effect.RESUME, message="following"),
        _reject(FAULT, RESET_FIRST),
    ),
    Event.STOP: _row(
        Cell(IDLE, Effect.END, message="stopped"),
        Cell(IDLE, Effect.END, message="stopped"),
        Cell(IDLE, Effect.END, message="stopped"),
        Cell(IDLE, Effect.END, message="stopped"),
        Cell(OPERATOR, Effect.END, message=f"stopped; {HAS_ARM}"),
        Cell(BENEATH, Effect.END, message="stopped"),
        Cell(FAULT, Effect.END, message="stopped; the fault stays latched"),
    ),
    Event.PAUSE: _row(
        _reject(IDLE, "cannot pause: no instruction is being followed"),
        Cell(PAUSED, message="paused; call ~/start to continue"),
        Cell(PAUSED, message="paused; call ~/start to continue"),
        Cell(PAUSED, message="already paused; call ~/start to continue"),
        Cell(OPERATOR, message=f"{HAS_ARM}; the policy is paused until ~/start"),
        Cell(SILENT, message=f"{HAS_ARM}; the policy is paused until ~/start"),
        _reject(FAULT, "cannot pause: a fault is latched and no instruction is being followed"),
    ),
    Event.EXECUTE: _row(
        Cell(HOLDING, Effect.BEGIN, message="following"),
        Cell(HOLDING, Effect.BEGIN, message="following"),
        Cell(HOLDING, Effect.BEGIN, message="following"),
        _reject(PAUSED, NO_GOAL_IN_PAUSE),
        _reject(OPERATOR, HAS_ARM),
        _reject(SILENT, SILENT_OPERATOR),
        _reject(FAULT, RESET_FIRST),
    ),
    Event.CANCEL: _end_of_goal(),
    Event.SUCCESS: _end_of_goal(),
    Event.TIME_LIMIT: _end_of_goal(),
    Event.UNKNOWN: _end_of_goal(),
    Event.TAKEOVER: {state: Cell(OPERATOR, message="the operator has taken over") for state in STATES},
    Event.SILENCE: _stay() | {OPERATOR: Cell(SILENT, message=SILENT_OPERATOR)},
    Event.RELEASE: _stay() | {state: Cell(BENEATH, message=RELEASED) for state in (OPERATOR, SILENT)},
    Event.FAULT: {state: Cell(FAULT, Effect.END) for state in STATES}
    | {state: Cell(state, Effect.END) for state in (OPERATOR, SILENT)},
    Event.RESET: _stay() | {FAULT: Cell(IDLE)},
    Event.RELOAD: _stay(),
    Event.SWAP: _stay(),
    Event.DEACTIVATE: {state: Cell(IDLE, Effect.END) for state in STATES}
    | {state: Cell(state, Effect.END) for state in (OPERATOR, SILENT, FAULT)},
    Event.COMMAND: _stay("no order", accepted=False) | {HOLDING: Cell(RUNNING), RUNNING: Cell(RUNNING)},
    Event.HOLD: _stay() | {RUNNING: Cell(HOLDING)},
}
GOAL_EVENTS = (Event.CANCEL, Event.SUCCESS, Event.TIME_LIMIT)


@dataclass
class Order:
    """An accepted instruction or goal; `known` is the checkpoint's instruction, empty while the text is compared."""

    text: str
    is_goal: bool
    known: str = ""

    def means(self, text: str) -> bool:
        """Return whether `text` is the text or the instruction of this order."""
        return normalise(text) in (normalise(self.text), normalise(self.known))


@dataclass(frozen=True)
class Decision:
    """What an event did: `ended` and `began` are the orders that ended and began with it."""

    event: Event
    before: State
    after: State
    accepted: bool
    message: str
    ended: Order | None = None
    began: Order | None = None


class Authority:
    """State of the policy node, from its configuration to its cleanup. Every method returns a Decision.

    `fault` is why a fault is latched, also beneath an operator; `order` is followed in HOLDING and RUNNING and
    suspended in PAUSED and OPERATOR.
    """

    def __init__(self):
        self.state = IDLE
        self.order: Order | None = None
        self.fault = ""
        self._last: Order | None = None  # the order that ~/start follows again
        self._on_topic = ""  # the last text of the topic
        self._pause_beneath = False  # whether a release of the operator leads to PAUSED

    @property
    def may_move(self) -> bool:
        """Whether the policy may command a motion now."""
        return self.state in (HOLDING, RUNNING) and self.order is not None and bool(self.order.known)

    @property
    def last_text(self) -> str:
        """Instruction of the present or the last order; empty if there was none."""
        return (self._last.known or self._last.text) if self._last else ""

    def why_rejected(self, event: Event) -> str:
        """Return why the table rejects an event now; empty if it accepts it."""
        cell = TABLE[event][self.state]
        return "" if cell.accepted else f"{cell.message}{f': {self.fault}' if self.state is FAULT else ''}"

    def instruct(self, text: str, known: str, *, on_topic: bool) -> Decision:
        """Handle an instruction. On the topic a repetition starts nothing; a request starts the text in any case.

        Args:
            text: The text that was sent.
            known: The checkpoint's instruction that it is, or empty if it must be compared first.
            on_topic: It was received on the topic.
        """
        order, followed = self.order, self.state in (HOLDING, RUNNING)
        same = order is not None and order.means(text)
        said = on_topic and (normalise(text) == self._on_topic or (self._last is not None and self._last.means(text)))
        if on_topic:
            self._on_topic = normalise(text)
        if (same and followed) or said:
            event = Event.REPEATED_INSTRUCTION
        elif order is not None and order.is_goal:
            event = Event.INSTRUCTION_DURING_GOAL
        else:
            event = Event.INSTRUCTION
        return self._decide(event, Order(text, False, known))

    def execute(self, text: str, known: str) -> Decision:
        """Handle a goal."""
        return self._decide(Event.EXECUTE, Order(text, True, known))

    def start(self, known: str) -> Decision:
        """Handle ~/start; `known` is the checkpoint's instruction for `last_text`, or empty if it has none."""
        last = self.order or self._last
        if self.fault:  # also beneath an operator who is silent
            return self._rejection(Event.START, f"{RESET_FIRST}: {self.fault}")
        if last is None:
            return self._rejection(Event.START, "no instruction yet; send one first")
        if not known and last.known:
            return self._rejection(
                Event.START, f"the checkpoint does not know {last.known!r}; send another instruction"
            )
        return self._decide(Event.START, self.order or Order(last.text, False, known))

    def latch(self, fault: str) -> Decision:
        """Handle a fault."""
        self.fault = fault
        return self._decide(Event.FAULT)

    def matched(self, known: str) -> None:
        """Record which known instruction the text of the present order means."""
        assert self.order is not None  # a comparison belongs to an order
        self.order.known = known

    def apply(self, event: Event) -> Decision:
        """Handle an event without an order of its own."""
        if event in GOAL_EVENTS and not (self.order and self.order.is_goal):
            return Decision(event, self.state, self.state, False, "no goal is running")
        if event is Event.RESET:
            fault, self.fault = self.fault, ""
            message = f"cleared: {fault}" if fault else "there was no fault"
            return self._decide(event, message=message)
        if event is Event.UNKNOWN:
            self._last = None  # a later checkpoint may know the text
        if event is Event.SWAP and self.order is None and self._last is None:
            self._on_topic = ""
        return self._decide(event)

    def _rejection(self, event: Event, message: str) -> Decision:
        """Reject an event that the table would accept here."""
        cell = TABLE[event][self.state]
        return Decision(event, self.state, self.state, False, message if cell.accepted else self.why_rejected(event))

    def _decide(self, event: Event, order: Order | None = None, message: str = "") -> Decision:
        before, cell, old = self.state, TABLE[event][self.state], self.order
        if not cell.accepted:
            return Decision(event, before, before, False, self.why_rejected(event))
        if event is Event.TAKEOVER and before not in (OPERATOR, SILENT):
            self._pause_beneath = before in (HOLDING, RUNNING, PAUSED)
        if event is Event.STOP:
            self._pause_beneath = False
        began = order if cell.effect in (Effect.BEGIN, Effect.RESUME) else None
        if began is not None:
            self.order = self._last = began
        elif cell.effect is Effect.END:
            self.order = None
        self.state = self._beneath() if cell.to is None else cell.to
        ended = old if old is not None and self.order is not old else None
        return Decision(event, before, self.state, True, message or cell.message, ended, began)

    def _beneath(self) -> State:
        if self.fault:
            return FAULT
        return PAUSED if self._pause_beneath else IDLE
