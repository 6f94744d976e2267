"""Smooth random variation, and the disturbances under which demonstrations are recorded."""

import numpy as np

OU_STD = (0.20, 0.20, 0.20, 0.04, 0.04, 0.04, 0.0)  # of the continuous disturbance, in action units
OU_SCALE = {"reach": 1.0, "grasp": 0.35, "carry": 0.8, "release": 0.4}
PUSH_RATE = {"reach": 0.025, "grasp": 0.01, "carry": 0.008, "release": 0.0}  # probability per step that a push begins
PUSH_STEPS, PUSH_SIZE = (4, 9), (0.5, 1.2)
SLIP_RATE, SLIP_STEPS = 0.01, (4, 8)  # while reaching: the fingers close against the intent


class SmoothNoise:
    """Ornstein-Uhlenbeck process with stationary deviation `std` (n,) and the given correlation time in steps."""

    def __init__(self, rng: np.random.Generator, std, correlation_steps: float):
        self._rng = rng
        self._std = np.asarray(std, dtype=np.float64)
        self._decay = np.exp(-1.0 / correlation_steps)
        self._value = self._std * rng.normal(size=self._std.shape)

    def step(self) -> np.ndarray:
        """Return the next value (n,)."""
        fresh = self._rng.normal(size=self._std.shape)
        self._value = self._decay * self._value + np.sqrt(1.0 - self._decay**2) * self._std * fresh
        return self._value.copy()


class Disturbance:
    """Noise that is added to an expert's intent during execution, so that demonstrations show recoveries.

    The recorded action remains the intent (as in DART, Laskey et al. 2017). The disturbance is smooth noise at every
    step, occasional pushes of a few centimetres, and occasional fingers that close too early.
    """

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._noise = SmoothNoise(rng, OU_STD, correlation_steps=5.0)
        self._push, self._push_left, self._slip_left = np.zeros(3), 0, 0

    def step(self, phase: str, intent: np.ndarray) -> np.ndarray:
        """Return the disturbance (7,) to add to `intent` (7,); the sum stays in [-1, 1]."""
        added = OU_SCALE[phase] * self._noise.step()
        if self._push_left == 0 and self._rng.random() < PUSH_RATE[phase]:
            direction = self._rng.normal(size=3)
            self._push = direction / np.linalg.norm(direction) * self._rng.uniform(*PUSH_SIZE)
            self._push_left = int(self._rng.integers(*PUSH_STEPS))
        if self._push_left > 0:
            added[:3] += self._push
            self._push_left -= 1
        if self._slip_left == 0 and phase == "reach" and self._rng.random() < SLIP_RATE:
            self._slip_left = int(self._rng.integers(*SLIP_STEPS))
        if self._slip_left > 0:
            added[6] = -2.0 * intent[6]
            self._slip_left -= 1
        return np.clip(intent + added, -1.0, 1.0) - intent
