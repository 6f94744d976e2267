"""Texts of instructions: which of them count as equal, and which words a similar text must share."""

import re
import unicodedata

# Words that negate, exclude or replace. A text with one of them is another task than a text without it.
NEGATIONS = """
not never no none nothing nor neither without except excluding exclude but avoid instead rather than unless stop dont
doesnt cannot cant wont shouldnt mustnt isnt skip leave ignore forget cancel abort undo any anything anywhere
every everything other others another else only both all
"""
# Words of a relation or a direction. Those of one line mean the same; a text with another line's word is another task.
RELATIONS = """
in into inside within
on onto upon atop
out outside
off
from
away far
under underneath beneath below
over above
behind
front before
after
beside next near alongside by
between among
left
right
top
bottom
middle center centre
down
open
close closed shut
push
pull
remove
empty
first
second
"""
_NEGATIONS = frozenset(NEGATIONS.split())
_RELATIONS = {word: index for index, words in enumerate(RELATIONS.splitlines()) for word in words.split()}

MAX_STATUS_TEXT = 500


def normalise(instruction: str) -> str:
    """Return the instruction without differences of case, white space and punctuation.

    Punctuation before a digit is kept, because it may be a sign or a decimal point.
    """
    text = instruction.casefold()
    characters = (
        " " if unicodedata.category(char).startswith("P") and not text[i + 1 : i + 2].isdigit() else char
        for i, char in enumerate(text)
    )
    return " ".join("".join(characters).split())


def changed_meaning(text: str, known: str) -> str:
    """Return the words of `text` or `known` that make a different task of similar texts; empty if there are none.

    A negation, an exclusion or a relation that only one of the two texts has is such a word, and so is a number.
    """
    ours, theirs = _words(text), _words(known)
    relations = {_RELATIONS.get(word) for word in ours} ^ {_RELATIONS.get(word) for word in theirs}
    changed = [
        word
        for word in (*ours, *theirs)
        if (word in ours) != (word in theirs)
        and (word in _NEGATIONS or _RELATIONS.get(word, -1) in relations or any(char.isdigit() for char in word))
    ]
    return ", ".join(dict.fromkeys(changed))


def _words(text: str) -> list[str]:
    return normalise(re.sub("['\u2019]", "", text)).split()  # "don't" is one word


def shortened(instruction: str) -> str:
    """Return the instruction as ~/status has it: cut after MAX_STATUS_TEXT characters."""
    return instruction if len(instruction) <= MAX_STATUS_TEXT else f"{instruction[:MAX_STATUS_TEXT]}..."
