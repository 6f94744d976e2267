"""The keyboard of a real terminal: keys move, and what nobody types key by key moves nothing."""

import os
import pty
import sys
import time
from collections.abc import Iterator

import pytest

from m2distill_policy.control.teleop import Teleoperator, TeleopSettings
from m2distill_policy.ros.teleop.keyboard import BELL, DO_NOT_MARK, MARK_PASTES, Keyboard

FORWARD = 1  # axis of "w", by the default settings


class Typist:
    """Person at a terminal whose keyboard is read 20 ms after each text."""

    def __init__(self, master: int, keyboard: Keyboard):
        self._master, self._keyboard, self._now_s = master, keyboard, 0.0
        self.operator = Teleoperator(TeleopSettings())
        self.types("")

    def types(self, text: str, after_s: float = 0.02) -> tuple[bool, float]:
        """Type a text; return whether the deadman counts as held, and the deflection forwards."""
        os.write(self._master, text.encode())
        time.sleep(0.02 if text else 0.0)  # for the terminal's driver
        self._now_s += after_s
        axes, buttons = self._keyboard.read(self._now_s)
        self.operator.receive(axes, buttons, self._now_s)
        return bool(buttons[TeleopSettings().deadman_button]), axes[FORWARD]


@pytest.fixture
def terminal(monkeypatch) -> Iterator[tuple[int, Keyboard]]:
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        keyboard = Keyboard(TeleopSettings())
        yield master, keyboard
        keyboard.close()
    os.close(master)


@pytest.fixture
def typist(terminal) -> Typist:
    return Typist(*terminal)


def test_a_held_key_moves_until_its_repetitions_end(typist):
    assert typist.types("w") == (True, 1.0)
    assert all(typist.types("", 0.05) == (True, 1.0) for _ in range(10))  # until the first repetition
    assert all(typist.types("w", 0.03) == (True, 1.0) for _ in range(10))
    assert typist.types("wwwwwww", 0.1) == (True, 1.0)  # on a busy machine
    assert typist.types("", 0.1) == (True, 1.0)
    assert typist.types("", 0.1) == (False, 0.0)


def test_two_keys_at_once_are_both_held_and_space_releases_them(typist):
    assert typist.types("wa") == (True, 1.0)
    assert typist.types(" ") == (False, 0.0)


def test_digits_are_orders_to_the_recorder_that_move_nothing(typist):
    for key in "12345":
        assert typist.types(key) == (False, 0.0)
        assert typist.types(key, 0.1) == (False, 0.0)  # held
    assert typist.operator.take_orders() == ["start", "keep", "discard", "success", "failure"]
    assert typist.types("w") == (True, 1.0)
    assert typist.types("1") == (True, 1.0)  # while the arm moves
    assert typist.operator.take_orders() == ["start"]
    typist.types("2345")  # pasted
    assert typist.operator.take_orders() == []


def test_the_bell_rings_in_the_terminal(terminal):
    master, keyboard = terminal
    keyboard.ring()
    time.sleep(0.02)  # for the terminal's driver
    assert os.read(master, 1000).decode().endswith(BELL)


@pytest.mark.parametrize(
    "text",
    [
        "w\n",  # a pasted line
        "wad",  # a pasted word of keys
        "wwwwwww",  # more than a terminal repeats in 20 ms
        "forward",
        "\x1b[a",  # keys of a terminal: Shift-up,
        "\x1bOd",  # Ctrl-left,
        "\x1bw",  # and Alt-w
        "\x1b[200~w\x1b[201~",  # one pasted letter, as the terminal marks it
        "\u00fcw",
    ],
)
def test_pasted_text_and_escape_sequences_release_all_keys_until_the_terminal_is_quiet(typist, text):
    assert typist.types("w") == (True, 1.0)
    assert typist.types(text) == (False, 0.0)
    assert all(typist.types("w", 0.2) == (False, 0.0) for _ in range(3))  # not quiet yet
    assert typist.types("", 0.26) == (False, 0.0)
    assert typist.types("w") == (True, 1.0)


def test_a_sequence_whose_parts_are_read_one_by_one_moves_nothing(typist):
    assert typist.types("\x1b") == typist.types("[") == typist.types("d") == (False, 0.0)


def test_what_was_typed_during_a_stall_moves_nothing(typist):
    assert typist.types("w") == (True, 1.0)
    assert typist.types("w", 0.5) == (False, 0.0)


def test_what_was_typed_before_the_terminal_is_read_moves_nothing_and_pastes_are_marked(terminal):
    master, keyboard = terminal
    keyboard.close()
    os.write(master, b"w")
    time.sleep(0.02)
    keyboard.open()
    assert Typist(master, keyboard).types("") == (False, 0.0)
    shown = os.read(master, 1000).decode()
    assert shown.index(MARK_PASTES) < shown.index(DO_NOT_MARK) < shown.rindex(MARK_PASTES)
