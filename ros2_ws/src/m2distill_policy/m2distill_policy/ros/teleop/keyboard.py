"""Keyboard of a terminal as a joystick.

A terminal reports presses and their repetition, but no release. A key counts as held until it has not been repeated for
a moment, and every key that moves the arm is also the deadman.
"""

import contextlib
import os
import select
import sys
import termios
import tty

from m2distill_policy.control.teleop import TeleopSettings
from m2distill_policy.errors import UserError

KEYS = {
    "w": (0, 1.0),
    "s": (0, -1.0),
    "a": (1, 1.0),
    "d": (1, -1.0),
    "r": (2, 1.0),
    "f": (2, -1.0),
    "u": (3, 1.0),
    "o": (3, -1.0),
    "i": (4, 1.0),
    "k": (4, -1.0),
    "j": (5, 1.0),
    "l": (5, -1.0),
}
OPEN, CLOSE, STILL = "q", "e", " "
FIRST_REPEAT_S, REPEAT_S = 0.6, 0.15  # a held key is repeated after a delay, then quickly


class Keyboard:
    """Reader of the standard input, in the form of joystick messages."""

    HELP = (
        "w/s forward, back  a/d left, right  r/f up, down  u/o roll  i/k pitch  j/l yaw  q open  e close; "
        "hold a key to move, release it or press space to stop, Ctrl-C ends"
    )

    def __init__(self, settings: TeleopSettings):
        if not sys.stdin.isatty():
            raise UserError(
                "device is keyboard, but standard input is not a terminal; start the node in a terminal of "
                "its own, or set device:=joy"
            )
        self._settings = settings
        self._held: dict[str, float] = {}  # key -> time at which it counts as released
        self._file = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._file)
        tty.setcbreak(self._file)

    def close(self) -> None:
        with contextlib.suppress(termios.error):  # the terminal is closed
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)

    def read(self, now_s: float) -> tuple[list[float], list[int]]:
        """Return axes and buttons as the settings number them. Raises UserError if the terminal is closed."""
        while select.select([self._file], [], [], 0)[0]:
            for key in self._typed():
                if key == STILL:
                    self._held.clear()
                else:
                    self._held[key] = now_s + (REPEAT_S if key in self._held else FIRST_REPEAT_S)
        self._held = {key: until for key, until in self._held.items() if until > now_s}
        s = self._settings
        axes = [0.0] * (1 + int(max(*s.axes, 0)))
        for key in self._held.keys() & KEYS.keys():
            motion, deflection = KEYS[key]
            if s.axes[motion] >= 0:
                axes[int(s.axes[motion])] = deflection * s.axis_signs[motion]
        buttons = [0] * (1 + max(s.deadman_button, s.open_button, s.close_button))
        buttons[s.open_button], buttons[s.close_button] = int(OPEN in self._held), int(CLOSE in self._held)
        buttons[s.deadman_button] = int(bool(self._held.keys() & {*KEYS, OPEN, CLOSE}))
        return axes, buttons

    def _typed(self) -> str:
        """Return the keys typed. A closed terminal is always ready and returns nothing or an error."""
        try:
            typed = os.read(self._file, 64)
        except OSError:
            typed = b""
        if not typed:
            raise UserError("the terminal is closed and the arm was released; start the node in another terminal")
        return typed.decode(errors="ignore")
