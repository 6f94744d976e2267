"""Which of the instructions a policy was trained on is meant by a text that spells none of them.

A policy conditions on embeddings it has seen; one that it has not seen moves the arm in ways nobody has tried. So a
text is never embedded for the policy: it is read as the known instruction it is nearest to, or refused. The judge is
the packaged sentence encoder, whatever encoder the checkpoint was trained with: BERT's pooled output, LIBERO's choice,
calls nearly all sentences alike.

Measured on LIBERO's instructions: paraphrases score 0.93 to 0.98 ("grab the alphabet soup and put it in the basket"),
other tasks' texts up to 0.88 within a suite, "turn off the stove" 0.90 against "turn on the stove". Two things that a
sentence embedding cannot see are left to rules: the same words in another order are another task ("put the plate on the
bowl", 0.99; "turn the stove on" is refused with it), and a text nearly as near to a second instruction is ambiguous
(LIBERO-SPATIAL's differ by one word).
"""

from collections.abc import Callable, Sequence

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_policy.language.text_encoder import MINILM, TextEncoder, TextEncoderError, load_text_encoder

LEAD = 0.05  # of the nearest instruction over the next


class Matcher:
    """`match` with the packaged encoder, which is loaded when it is first needed: that takes seconds."""

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._encoder: TextEncoder | None = None

    @property
    def exact_only(self) -> bool:
        return self._threshold >= 1.0

    def match(self, text: str, known: Sequence[str]) -> str:
        try:
            self._encoder = self._encoder or load_text_encoder(MINILM)
        except TextEncoderError as error:
            raise UserError(
                f"unknown instruction {text!r}; known: {'; '.join(sorted(known))} (and nothing can be read "
                f"as one of them: {error})"
            ) from None
        return match(text, known, self._threshold, self._encoder.encode)


def match(text: str, known: Sequence[str], threshold: float, encode: Callable[[Sequence[str]], np.ndarray]) -> str:
    """The one of `known` that `text` means. Raises UserError, naming the known ones, when it is none of them.

    `encode`: n sentences -> (n, L), of length 1 each or of any other length.
    """
    embeddings = encode([text, *known])
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    likeness = embeddings[1:] @ embeddings[0]
    order = np.argsort(-likeness)
    nearest = known[order[0]]
    said = f"unknown instruction {text!r}; nearest is {nearest!r} with a likeness of {likeness[order[0]]:.2f}"
    names = f"known: {'; '.join(sorted(known))}"
    if not likeness[order[0]] >= threshold:
        raise UserError(f"{said}, {threshold:g} is needed (min_similarity); {names}")
    if len(known) > 1 and likeness[order[0]] - likeness[order[1]] < LEAD:
        raise UserError(f"{said}, hardly more than {known[order[1]]!r}; {names}")
    if sorted(_words(text)) == sorted(_words(nearest)):
        raise UserError(f"{said}, which has the same words in another order; {names}")
    return nearest


def _words(text: str) -> list[str]:
    return text.casefold().replace(".", " ").replace(",", " ").split()
