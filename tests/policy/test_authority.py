"""Who may move the arm: the whole table, and random sequences of events against an independent model."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from m2distill_policy.safety.authority import TABLE, Authority, Event, State

SOUP, WAVE = "pick up the soup", "wave"
LETTER = dict(zip("IHRPOSF", State, strict=True))  # IDLE HOLDING RUNNING PAUSED OPERATOR SILENT FAULT
# The state after each event in each state, in the order of LETTER; small: the event is rejected; * back to the state
# beneath; + a new order begins or continues; - the order ends.
EXPECTED = {
    Event.INSTRUCTION: "H+ H+ H+ H+ o s f",
    Event.INSTRUCTION_DURING_GOAL: "i h r p o s f",
    Event.REPEATED_INSTRUCTION: "i H R p o s f",
    Event.START: "H+ H R H+ o H+ f",
    Event.STOP: "I- I- I- I- O- *- F-",
    Event.PAUSE: "i P P P O S f",
    Event.EXECUTE: "H+ H+ H+ p o s f",
    Event.CANCEL: "I- I- I- P- O- S- F-",
    Event.SUCCESS: "I- I- I- P- O- S- F-",
    Event.TIME_LIMIT: "I- I- I- P- O- S- F-",
    Event.UNKNOWN: "I- I- I- P- O- S- F-",
    Event.TAKEOVER: "O O O O O O O",
    Event.SILENCE: "I H R P S S F",
    Event.RELEASE: "I H R P * * F",
    Event.FAULT: "F- F- F- F- O- S- F-",
    Event.RESET: "I H R P O S I",
    Event.RELOAD: "I H R P O S F",
    Event.SWAP: "I H R P O S F",
    Event.DEACTIVATE: "I- I- I- I- O- S- F-",
    Event.COMMAND: "i R R p o s f",
    Event.HOLD: "I H H P O S F",
}


def reached(state: State, *, goal: bool = False, fault: str = "joint limit") -> Authority:
    """Return an authority in `state`, with an order unless it is IDLE or FAULT."""
    authority = Authority()
    if state is not State.IDLE:
        begun = authority.execute(SOUP, SOUP) if goal else authority.instruct(SOUP, SOUP, on_topic=True)
        assert begun.accepted
    if state is State.RUNNING:
        authority.apply(Event.COMMAND)
    elif state is State.PAUSED:
        authority.apply(Event.PAUSE)
    elif state in (State.OPERATOR, State.SILENT):
        authority.apply(Event.TAKEOVER)
    elif state is State.FAULT:
        authority.latch(fault)
    if state is State.SILENT:
        authority.apply(Event.SILENCE)
    assert authority.state is state
    return authority


def send(authority: Authority, event: Event):
    """Cause an event by the method that causes it in the node."""
    if event is Event.INSTRUCTION:
        return authority.instruct(WAVE, WAVE, on_topic=True)
    if event is Event.INSTRUCTION_DURING_GOAL:
        return authority.instruct(WAVE, WAVE, on_topic=False)
    if event is Event.REPEATED_INSTRUCTION:
        return authority.instruct(SOUP, SOUP, on_topic=True)
    if event is Event.START:
        return authority.start(SOUP)
    if event is Event.EXECUTE:
        return authority.execute(WAVE, WAVE)
    if event is Event.FAULT:
        return authority.latch("a fault")
    return authority.apply(event)


@pytest.mark.parametrize("event", Event)
def test_every_event_in_every_state(event):
    """The table is complete, and the state after each event is the one that the grid above expects."""
    assert set(TABLE) == set(Event) == set(EXPECTED) and set(TABLE[event]) == set(State)
    goal_only = event in (Event.INSTRUCTION_DURING_GOAL, Event.CANCEL, Event.SUCCESS, Event.TIME_LIMIT)
    for state, expected in zip(State, EXPECTED[event].split(), strict=True):
        if goal_only and state in (State.IDLE, State.FAULT):
            continue  # no goal exists there
        authority = reached(state, goal=goal_only)
        if state is State.IDLE and event in (Event.START, Event.REPEATED_INSTRUCTION):
            send(authority, Event.REPEATED_INSTRUCTION), authority.apply(Event.STOP)
        order = authority.order
        decision = send(authority, event)
        assert decision.event is event and (decision.before, decision.after) == (state, authority.state), state
        assert decision.accepted == expected[0].isupper() or expected[0] == "*", (state, decision)
        after = State.PAUSED if expected == "*" else State.IDLE if expected[0] == "*" else LETTER[expected[0].upper()]
        assert authority.state is after, (state, decision)
        if "+" in expected:
            assert decision.began is authority.order is not None and decision.message == "following"
        elif "-" in expected:
            assert authority.order is None and decision.ended is order
        else:
            assert authority.order is order and decision.began is None and decision.ended is None
        assert decision.accepted or decision.message, "a rejection states its reason"


def test_a_repetition_changes_nothing_and_only_start_or_another_text_ends_a_stop_or_a_pause():
    for event, after in ((Event.STOP, State.IDLE), (Event.PAUSE, State.PAUSED)):
        authority = reached(State.RUNNING)
        for _ in range(10):
            assert authority.instruct(f"{SOUP.upper()}. ", SOUP, on_topic=True).began is None
        assert authority.state is State.RUNNING
        authority.apply(event)
        assert not authority.instruct(SOUP, SOUP, on_topic=True).accepted and authority.state is after
        assert authority.start(SOUP).accepted and authority.state is State.HOLDING
        authority.apply(event)
        assert authority.instruct(SOUP, SOUP, on_topic=False).accepted  # a request is no repetition
        authority.apply(event)
        assert authority.instruct(WAVE, WAVE, on_topic=True).accepted


def test_a_text_that_the_topic_repeats_takes_nothing_from_a_later_order():
    authority = reached(State.RUNNING)
    authority.instruct(WAVE, WAVE, on_topic=False)
    assert authority.instruct(SOUP, SOUP, on_topic=True).event is Event.REPEATED_INSTRUCTION
    assert authority.order.known == WAVE


def test_a_paraphrase_is_followed_after_its_comparison_and_its_repetition_changes_nothing():
    authority = Authority()
    authority.instruct("fetch the soup", "", on_topic=True)
    assert authority.state is State.HOLDING and not authority.may_move
    assert authority.instruct("fetch the soup", "", on_topic=True).began is None
    authority.matched(SOUP)
    assert authority.may_move
    for text in ("Fetch the soup.", SOUP):
        assert authority.instruct(text, SOUP, on_topic=True).event is Event.REPEATED_INSTRUCTION
    assert authority.last_text == SOUP


def test_an_unknown_text_may_be_sent_again_after_a_swap_and_a_stopped_one_may_not():
    authority = Authority()
    authority.instruct("bow", "", on_topic=True)
    authority.apply(Event.UNKNOWN)
    assert not authority.instruct("bow", "", on_topic=True).accepted
    authority.apply(Event.SWAP)
    assert authority.instruct("bow", "bow", on_topic=True).accepted
    authority.apply(Event.STOP)
    authority.apply(Event.SWAP)
    assert not authority.instruct("bow", "bow", on_topic=True).accepted


def test_a_fault_is_kept_beneath_an_operator():
    authority = reached(State.FAULT)
    authority.apply(Event.TAKEOVER)
    assert authority.state is State.OPERATOR
    authority.apply(Event.RELEASE)
    assert authority.state is State.FAULT and authority.fault
    assert authority.apply(Event.RESET).message == "cleared: joint limit"
    assert authority.state is State.IDLE and authority.apply(Event.RESET).message == "there was no fault"


def test_a_start_without_an_instruction_or_with_one_that_was_swapped_away_is_rejected():
    authority = Authority()
    assert "no instruction yet" in authority.start("").message
    authority = reached(State.PAUSED)
    assert "does not know 'pick up the soup'" in authority.start("").message and authority.state is State.PAUSED


class Sequences(RuleBasedStateMachine):
    """Any sequence of events. The model below the rules is written without the table."""

    def __init__(self):
        super().__init__()
        self.authority = Authority()
        self.operator = self.silent = self.ordered = False
        self.fault = False

    def permit(self, decision) -> None:
        """Record an order that was acknowledged; nobody of a higher rank has the arm then."""
        if decision.accepted:
            assert not self.fault and (not self.operator or (self.silent and decision.event is Event.START))
            assert decision.message in ("following", "already following")
            if decision.began:
                self.operator = self.silent = False
                self.ordered = True
            assert self.ordered
        else:
            assert decision.message

    @rule(text=st.sampled_from([SOUP, WAVE, "WAVE."]), on_topic=st.booleans(), known=st.booleans())
    def instruct(self, text, on_topic, known):
        order = self.authority.order
        decision = self.authority.instruct(text, text.lower().rstrip(".") if known else "", on_topic=on_topic)
        self.permit(decision)
        if order is not None and order.is_goal:
            assert self.authority.order is order, "an instruction ended a goal"

    @rule(text=st.sampled_from([SOUP, WAVE]), known=st.booleans())
    def execute(self, text, known):
        self.permit(self.authority.execute(text, text if known else ""))

    @rule(known=st.sampled_from([SOUP, ""]))
    def start(self, known):
        self.permit(self.authority.start(known))

    @rule(found=st.booleans())
    def compared(self, found):
        if self.authority.order and not self.authority.order.known:
            if found:
                self.authority.matched(WAVE)
            else:
                self.authority.apply(Event.UNKNOWN)
                self.ordered = False

    @rule()
    def stop(self):
        assert self.authority.apply(Event.STOP).accepted
        self.ordered = False
        self.operator = self.operator and not self.silent
        self.silent = False

    @rule(event=st.sampled_from([Event.PAUSE, Event.DEACTIVATE]))
    def suspend(self, event):
        if self.authority.apply(event).accepted:
            self.ordered = False

    @rule(event=st.sampled_from([Event.CANCEL, Event.SUCCESS, Event.TIME_LIMIT]))
    def end_goal(self, event):
        goal = self.authority.order is not None and self.authority.order.is_goal
        assert self.authority.apply(event).accepted == goal
        if goal:
            self.ordered = False

    @rule()
    def take_over(self):
        self.authority.apply(Event.TAKEOVER)
        self.operator, self.silent, self.ordered = True, False, False

    @rule()
    def fall_silent(self):
        self.authority.apply(Event.SILENCE)
        self.silent = self.operator

    @rule()
    def release(self):
        self.authority.apply(Event.RELEASE)
        self.operator = self.silent = False

    @rule()
    def latch(self):
        self.authority.latch("a fault")
        self.fault, self.ordered = True, False

    @rule()
    def reset(self):
        self.authority.apply(Event.RESET)
        self.fault = False

    @rule(event=st.sampled_from([Event.RELOAD, Event.SWAP, Event.COMMAND, Event.HOLD]))
    def nothing_that_orders(self, event):
        moved = self.authority.may_move
        self.authority.apply(event)
        assert self.authority.may_move == moved

    @invariant()
    def nothing_moves_without_an_order_from_the_one_who_has_authority(self):
        may = self.authority.may_move
        assert not may or (self.ordered and not self.operator and not self.fault)
        assert (self.authority.state in (State.OPERATOR, State.SILENT)) == self.operator
        assert bool(self.authority.fault) == self.fault
        assert (self.authority.state is State.FAULT) == (self.fault and not self.operator)


Sequences.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestSequences = Sequences.TestCase
