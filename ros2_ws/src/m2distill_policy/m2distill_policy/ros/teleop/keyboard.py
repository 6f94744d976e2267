"""Keyboard of a terminal as a joystick.

A terminal reports presses and their repetition, but no release. A key counts as held until it has not been repeated for
a moment, and every key that moves the arm is also the deadman. Other keys are the buttons for the recorder.

Text that nobody types key by key moves nothing: pasted lines, escape sequences of other keys, and what was typed while
the node did not read. All keys count as released then, until the terminal has been quiet for a moment. Any key without
a meaning has the same effect.
"""

import contextlib
import os
import select
import sys
import termios
import tty

from m2distill_policy.control.teleop import BUTTONS, ORDERS, TeleopSettings
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
OPEN, CLOSE = "q", "e"
ORDER_KEYS = dict(zip("12345", ORDERS, strict=True))
BELL = "\a"
FIRST_REPEAT_S, REPEAT_S = 0.6, 0.15  # a held key is repeated after a delay, then quickly
MAX_KEYS_HZ = 100  # repetitions of a held key
MAX_AT_ONCE = 2  # different keys that a person presses between two reads
STALL_S = 0.3  # time between two reads after which what was typed meanwhile is old
QUIET_S = 0.25  # silence of the terminal after which keys count again
MARK_PASTES, DO_NOT_MARK = "\x1b[?2004h", "\x1b[?2004l"  # bracketed paste: the terminal puts pasted text in sequences


class Keyboard:
    """Reader of the standard input, in the form of joystick messages."""

    HELP = (
        "w/s forward, back  a/d left, right  r/f up, down  u/o roll  i/k pitch  j/l yaw  q open  e close; "
        f"{'  '.join(f'{key} {order}' for key, order in ORDER_KEYS.items())}; "
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
        self.open()

    def open(self) -> None:
        """Read keys, not lines, and discard what was typed before."""
        tty.setcbreak(self._file)
        termios.tcflush(self._file, termios.TCIFLUSH)
        self._read_s: float | None = None  # time of the last read
        self._quiet_s = 0.0  # time from which keys count
        self._write(MARK_PASTES)

    def close(self) -> None:
        """Restore the terminal and count all keys as released."""
        self._held.clear()
        with contextlib.suppress(termios.error):  # the terminal is closed
            termios.tcsetattr(self._file, termios.TCSADRAIN, self._before)
        self._write(DO_NOT_MARK)

    def ring(self) -> None:
        """Ring the bell of the terminal."""
        self._write(BELL)

    def _write(self, sequence: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is closed
            os.write(self._file, sequence.encode())

    def read(self, now_s: float) -> tuple[list[float], list[int]]:
        """Return axes and buttons as the settings number them. Raises UserError if the terminal is closed."""
        typed = ""
        while select.select([self._file], [], [], 0)[0]:
            typed += self._typed()
        if typed and (now_s < self._quiet_s or not self._is_by_hand(typed, now_s)):
            self._held.clear()
            self._quiet_s = now_s + QUIET_S
            typed = ""
        self._read_s = now_s
        for key in typed:
            self._held[key] = now_s + (REPEAT_S if key in self._held else FIRST_REPEAT_S)
        self._held = {key: until for key, until in self._held.items() if until > now_s}
        s = self._settings
        axes = [0.0] * (1 + int(max(*s.axes, 0)))
        for key in self._held.keys() & KEYS.keys():
            motion, deflection = KEYS[key]
            if s.axes[motion] >= 0:
                axes[int(s.axes[motion])] = deflection * s.axis_signs[motion]
        buttons = [0] * (1 + max(getattr(s, f"{function}_button") for function in BUTTONS))
        buttons[s.open_button], buttons[s.close_button] = int(OPEN in self._held), int(CLOSE in self._held)
        buttons[s.deadman_button] = int(bool(self._held.keys() & {*KEYS, OPEN, CLOSE}))
        for key, order in ORDER_KEYS.items():
            if (number := getattr(s, f"{order}_button")) >= 0:
                buttons[number] = int(key in self._held)
        return axes, buttons

    def _is_by_hand(self, typed: str, now_s: float) -> bool:
        """Return whether these are keys of this node, no more than a person presses and a terminal repeats."""
        since_s = 0.0 if self._read_s is None else now_s - self._read_s
        return (
            set(typed) <= {*KEYS, OPEN, CLOSE, *ORDER_KEYS}
            and len(set(typed)) <= MAX_AT_ONCE
            and since_s <= STALL_S
            and len(typed) <= MAX_AT_ONCE + MAX_KEYS_HZ * since_s
        )

    def _typed(self) -> str:
        """Return the keys typed. A closed terminal is always ready and returns nothing or an error."""
        try:
            typed = os.read(self._file, 4096)
        except OSError:
            typed = b""
        if not typed:
            raise UserError("the terminal is closed and the arm was released; start the node in another terminal")
        return typed.decode(errors="replace")
