"""Texts that spell no known instruction: read as one, or refused. By hand-made embeddings, and by the real encoder."""

import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_matcher import Matcher, match

KNOWN = ["wave", "open the door"]
ANGLES = {
    "wave": 0.0,
    "open the door": 90.0,
    "wave hello": 10.0,
    "open a gate": 60.0,
    "do both": 45.0,
    "door the open": 90.0,
}


def encode(texts):
    """Each text a direction in a plane, of no particular length."""
    return np.array([[2 * np.cos(np.radians(ANGLES[t])), 2 * np.sin(np.radians(ANGLES[t]))] for t in texts])


@pytest.mark.parametrize(
    ("text", "threshold", "outcome"),
    [
        ("wave hello", 0.98, "wave"),  # cos 10 degrees = 0.985
        ("wave hello", 0.99, "nearest is 'wave' with a likeness of 0.98, 0.99 is needed"),
        ("open a gate", 0.8, "open the door"),
        ("do both", 0.5, "hardly more than"),
        ("door the open", 0.9, "the same words in another order"),
    ],
)
def test_a_text_is_read_as_the_nearest_instruction_or_refused_with_the_known_ones(text, threshold, outcome):
    if outcome in KNOWN:
        assert match(text, KNOWN, threshold, encode) == outcome
    else:
        with pytest.raises(UserError) as error:
            match(text, KNOWN, threshold, encode)
        assert outcome in str(error.value) and str(error.value).endswith("known: open the door; wave")


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="likeness of nan"):
        match("wave hello", KNOWN, 0.5, lambda texts: np.full((len(texts), 2), np.nan))


def test_the_packaged_encoder_reads_paraphrases_and_refuses_other_tasks():
    libero = [
        "pick up the alphabet soup and place it in the basket",
        "pick up the milk and place it in the basket",
        "turn on the stove",
        "put the bowl on the plate",
    ]
    matcher = Matcher(0.93)
    assert matcher.match("grab the alphabet soup and put it in the basket", libero) == libero[0]
    assert matcher.match("place the bowl onto the plate", libero) == libero[3]
    for other in (
        "pick up the banana and place it in the basket",
        "turn off the stove",
        "put the plate on the bowl",
        "make coffee",
        "do not pick up the alphabet soup",
        "turn the stove on",
    ):  # the last: safe, if strict
        with pytest.raises(UserError, match="known: pick up the alphabet soup"):
            matcher.match(other, libero)
