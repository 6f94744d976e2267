"""Rules that flag episodes of a set. A flag is a reason to look; it removes nothing.

idle      it begins or ends with more than IDLE_STEPS steps without a commanded motion
saturated a motion command of at least SATURATED is in more than SATURATED_SHARE of the steps
jump      a joint moves by more than JUMP_RAD within one step
frozen    a camera repeats one image for more than FROZEN_STEPS steps while the arm is commanded to move
length    the robust z-score of its number of steps is above MOST_Z
wording   its instruction is like a more frequent one of the set, or not that of the file's name
rejected  the import does not accept it
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m2distill_policy.language.instruction_text import normalise
from m2distill_training.data.review.episodes import DemoSet, Episode

STILL = 0.02  # a motion command below this share of full scale does not move the arm visibly
IDLE_STEPS = 10  # 0.5 s at 20 Hz
SATURATED, SATURATED_SHARE = 0.99, 0.25
JUMP_RAD = 0.2  # at 20 Hz 4 rad/s; a Panda's joints reach 2.61 rad/s (data sheet)
FROZEN_STEPS = 5
MOST_Z = 3.5  # Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993
SIMILAR = 0.85  # ratio of difflib from which two instructions probably mean one task


@dataclass(frozen=True)
class Curves:
    """What the rules and the plots need of an episode; T steps."""

    steps: int
    joint: np.ndarray  # (T, J) rad
    gripper: np.ndarray  # (T, G) m or rad
    action: np.ndarray  # (T, 7), in [-1, 1]
    frozen: np.ndarray  # (T,) the number of steps for which some camera has repeated its image

    @property
    def joint_step(self) -> np.ndarray:
        """Return the largest movement of a joint within each step (T,), rad."""
        return np.abs(np.diff(self.joint, axis=0, prepend=self.joint[:1])).max(axis=1)

    @property
    def moves(self) -> np.ndarray:
        """Return True (T,) for steps with a commanded motion of the arm or the gripper."""
        moves = np.abs(self.action[:, :6]).max(axis=1) > STILL
        moves[1:] |= np.abs(np.diff(self.action[:, 6])) > STILL
        return moves

    def busy(self) -> tuple[int, int]:
        """Return the first and the last step with a commanded motion; all steps if there is none."""
        moving = np.flatnonzero(self.moves)
        return (int(moving[0]), int(moving[-1])) if len(moving) else (0, self.steps - 1)


def curves_of(episode: Episode) -> Curves | None:
    """Return the curves of an episode, None if it has no demonstration."""
    demo = episode.demo
    if demo is None:
        return None
    frozen = np.zeros(len(demo.action), int)
    for images in demo.images.values():
        flat = images.reshape(len(images), -1)
        run = 0
        for step in range(1, len(flat)):
            run = run + 1 if np.array_equal(flat[step], flat[step - 1]) else 0
            frozen[step] = max(frozen[step], run)
    return Curves(len(demo.action), demo.joint, demo.gripper, demo.action, frozen)


def flags_of(curves: Curves) -> list[str]:
    """Return what is unusual about an episode by itself, one sentence each."""
    found = []
    first, last = curves.busy()
    if first > IDLE_STEPS:
        found.append(f"idle: the first {first} steps command no motion")
    if curves.steps - 1 - last > IDLE_STEPS:
        found.append(f"idle: the last {curves.steps - 1 - last} steps command no motion")
    share = float(np.mean(np.abs(curves.action[:, :6]).max(axis=1) >= SATURATED))
    if share > SATURATED_SHARE:
        found.append(f"saturated: {share:.0%} of the steps command full scale")
    if (largest := float(curves.joint_step.max())) > JUMP_RAD:
        found.append(f"jump: a joint moves {largest:.2f} rad within step {int(curves.joint_step.argmax())}")
    stuck = np.where(curves.moves, curves.frozen, 0)
    if stuck.max() > FROZEN_STEPS:
        found.append(f"frozen: a camera repeats an image for {stuck.max()} steps, until step {int(stuck.argmax())}")
    return found


def robust_z(values: Sequence[float]) -> np.ndarray:
    """Return modified z-scores: distance from the median over the scaled median absolute deviation.

    If over half of the values are equal, the mean absolute deviation takes its place (as in the source of MOST_Z).
    """
    x = np.asarray(values, float)
    if len(x) == 0:
        return x
    distance = x - np.median(x)
    scale = np.median(np.abs(distance)) / 0.6745 or np.mean(np.abs(distance)) * 1.2533
    return distance / scale if scale else np.zeros(len(x))


def flags_of_set(demos: DemoSet, episodes: Sequence[tuple[str, str, int | None]]) -> dict[str, list[str]]:
    """Return {name: sentences} of what is unusual beside the other episodes of the set.

    Args:
        demos: the set.
        episodes: name, instruction and number of steps of each episode.
    """
    found: dict[str, list[str]] = {name: [] for name, _, _ in episodes}
    known = [(name, steps) for name, _, steps in episodes if steps is not None]
    scores = robust_z([steps for _, steps in known])
    median = np.median([steps for _, steps in known]) if known else 0
    for (name, steps), z in zip(known, scores, strict=True):
        if abs(z) > MOST_Z:
            found[name].append(f"length: {steps} steps, the median is {median:g} (robust z {z:+.1f})")
    counts = Counter(text for _, text, _ in episodes)
    for name, text, _ in episodes:
        if other := _more_frequent(text, counts):
            found[name].append(f"wording: the instruction is like the more frequent {other!r}")
        elif demos.path.is_file() and not _fits_file_name(text, demos.path):
            found[name].append(f"wording: the instruction is not that of the file's name, {demos.path.name}")
    return found


def _more_frequent(text: str, counts: Counter[str]) -> str:
    for other, count in counts.most_common():
        if other == text or not text or count <= counts[text]:
            continue
        one, two = normalise(text), normalise(other)
        if one == two or difflib.SequenceMatcher(None, one, two).ratio() >= SIMILAR:
            return other
    return ""


def _fits_file_name(instruction: str, path: Path) -> bool:
    """Check names as LIBERO and m2distill give them, `<scene>_<instruction>_demo.hdf5`; other names fit anything."""
    stem = path.stem.lower().removesuffix("_demo")
    words = re.sub(r"\W+", "_", instruction.lower()).strip("_")
    if stem == path.stem.lower() or stem.count("_") < 2:
        return True
    return words in stem or stem in words
