"""Texts that equal no known instruction are matched to one or rejected; synthetic embeddings and the real encoder."""

import numpy as np
import pytest

from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_matcher import InstructionMatcher, match_instruction
from m2distill_policy.language.instruction_text import normalise

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
    """Return each text as a direction in a plane, with an arbitrary length."""
    return np.array([[2 * np.cos(np.radians(ANGLES[t])), 2 * np.sin(np.radians(ANGLES[t]))] for t in texts])


@pytest.mark.parametrize(
    ("text", "threshold", "outcome"),
    [
        ("wave hello", 0.98, "wave"),  # cos 10 degrees = 0.985
        ("wave hello", 0.99, "nearest is 'wave' with a similarity of 0.98, required 0.99"),
        ("open a gate", 0.8, "open the door"),
        ("do both", 0.5, "too close to"),
        ("door the open", 0.9, "the same words in another order"),
    ],
)
def test_a_text_matches_the_nearest_instruction_or_is_rejected_with_the_known_ones(text, threshold, outcome):
    if outcome in KNOWN:
        assert match_instruction(text, KNOWN, threshold, encode) == outcome
    else:
        with pytest.raises(UserError) as error:
            match_instruction(text, KNOWN, threshold, encode)
        assert outcome in str(error.value) and str(error.value).endswith("known: open the door; wave")


SOUP = "pick up the alphabet soup and place it in the basket"


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("do NOT pick up the alphabet soup and place it in the basket", "not"),
        ("Don't pick up the alphabet soup and place it in the basket", "dont"),
        ("don\u2019t pick up the alphabet soup and place it in the basket", "dont"),
        ("never pick up the alphabet soup and place it in the basket", "never"),
        ("pick up anything but the alphabet soup and place it in the basket", "anything, but"),
        ("pick up everything except the alphabet soup and place it in the basket", "everything, except"),
        ("pick up the other alphabet soup and place it in the basket", "other"),
        ("pick up the alphabet soup and place it outside the basket", "outside, in"),
        ("pick up the alphabet soup and place it next to the basket", "next, in"),
        ("pick up the alphabet soup and place it under the basket", "under, in"),
        ("take the alphabet soup out of the basket", "out, in"),
        ("pick up the alphabet soup and do not place it in the basket", "not"),
        ("pick up the alphabet soup instead of placing it in the basket", "instead"),
        ("pick up 2 alphabet soups and place them in the basket", "2"),
    ],
)
def test_a_text_that_negates_or_changes_a_relation_is_rejected_however_similar_it_is(text, changed):
    with pytest.raises(UserError, match=f"a difference may change the meaning: {changed}; known: {SOUP}"):
        match_instruction(text, [SOUP], 0.93, lambda texts: np.ones((len(texts), 2)))


def test_words_with_the_same_meaning_are_no_difference():
    for text in (
        "grab the alphabet soup, and put it into the basket!",
        "place the alphabet soup inside a basket",
    ):
        assert match_instruction(text, [SOUP], 0.93, lambda texts: np.ones((len(texts), 2))) == SOUP
    known = "turn on the stove and do not touch the bowl"
    text = "switch on the stove, and do not touch a bowl"
    assert match_instruction(text, [known], 0.93, lambda texts: np.ones((len(texts), 2))) == known


@pytest.mark.parametrize(
    ("text", "other", "equal"),
    [
        ("Wave.", "wave", True),
        ("  Pick up,\tthe soup!  ", "pick up the soup", True),
        ("move -5 cm", "move 5 cm", False),
        ("move 0.5 m", "move 05 m", False),
        ("wave", "do not wave", False),
        ("\u0926\u0940", "\u0926\u093f", False),  # two words of Hindi that differ by a vowel sign
    ],
)
def test_texts_are_equal_apart_from_case_spaces_and_punctuation(text, other, equal):
    assert (normalise(text) == normalise(other)) == equal


def test_embeddings_that_are_not_finite_are_rejected():
    with pytest.raises(UserError, match="similarity of nan"):
        match_instruction("wave hello", KNOWN, 0.5, lambda texts: np.full((len(texts), 2), np.nan))


def test_the_packaged_encoder_matches_paraphrases_and_rejects_other_tasks():
    libero = [
        "pick up the alphabet soup and place it in the basket",
        "pick up the milk and place it in the basket",
        "turn on the stove",
        "put the bowl on the plate",
    ]
    matcher = InstructionMatcher(0.93)
    assert matcher.match("grab the alphabet soup and put it in the basket", libero) == libero[0]
    assert matcher.match("place the bowl onto the plate", libero) == libero[3]
    for other in (
        "pick up the banana and place it in the basket",
        "turn off the stove",
        "put the plate on the bowl",
        "make coffee",
        "do not pick up the alphabet soup",
        "turn the stove on",
    ):  # the last one is strict, but safe
        with pytest.raises(UserError, match="known: pick up the alphabet soup"):
            matcher.match(other, libero)
