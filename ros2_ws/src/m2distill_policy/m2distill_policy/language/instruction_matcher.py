"""Match an unseen instruction to one of the instructions that a policy was trained on.

A policy is tested only with the embeddings of its training instructions, so it never receives the embedding of a new
text. The text is matched to the most similar known instruction, or rejected. The packaged sentence encoder computes the
similarity, whatever encoder the checkpoint uses: the pooled output of BERT, LIBERO's choice, is similar for nearly all
sentences.

Measured on LIBERO's instructions: paraphrases have a cosine similarity of 0.93 to 0.98 ("grab the alphabet soup and put
it in the basket"), texts of other tasks up to 0.88 within a suite, "turn off the stove" 0.90 to "turn on the stove".
Rules cover three cases that a sentence embedding cannot separate. The same words in another order are another task
("put the plate on the bowl", 0.99), which also rejects "turn the stove on". A text that is nearly as similar to a
second instruction is ambiguous, because the instructions of LIBERO-SPATIAL differ by one word. A negation or another
relation ("do not pick up", "anything but", "outside the basket") makes another task, so a text with such a word is
rejected unless the known instruction has it too (`instruction_text.py`).
"""

from collections.abc import Callable, Sequence

import numpy as np

from m2distill_policy.errors import UserError
from m2distill_policy.language.instruction_text import changed_meaning, normalise
from m2distill_policy.language.text_encoder import MINILM, TextEncoder, TextEncoderError, load_text_encoder

MIN_MARGIN = 0.05  # of the best similarity over the second best


class InstructionMatcher:
    """Matcher with the packaged encoder, which is loaded at the first match; that takes seconds."""

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._encoder: TextEncoder | None = None

    @property
    def exact_only(self) -> bool:
        """Whether only exact texts are accepted."""
        return self._threshold >= 1.0

    def match(self, text: str, known: Sequence[str]) -> str:
        """Return the instruction of `known` that `text` means. Raises UserError if there is none."""
        try:
            self._encoder = self._encoder or load_text_encoder(MINILM)
        except TextEncoderError as error:
            raise UserError(
                f"unknown instruction {text!r}; known: {'; '.join(sorted(known))} (similar texts cannot be matched: "
                f"{error})"
            ) from None
        return match_instruction(text, known, self._threshold, self._encoder.encode)


def match_instruction(
    text: str, known: Sequence[str], threshold: float, encode: Callable[[Sequence[str]], np.ndarray]
) -> str:
    """Return the instruction of `known` that `text` means.

    Args:
        text: the new instruction.
        known: the instructions of the policy, at least one.
        threshold: minimum cosine similarity.
        encode: n sentences -> embeddings (n, L), of any length.

    Raises:
        UserError: `text` matches none of them; the message lists the known instructions.
    """
    embeddings = encode([text, *known])
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = embeddings[1:] @ embeddings[0]
    order = np.argsort(-similarity)
    nearest = known[order[0]]
    problem = f"unknown instruction {text!r}; nearest is {nearest!r} with a similarity of {similarity[order[0]]:.2f}"
    names = f"known: {'; '.join(sorted(known))}"
    if not similarity[order[0]] >= threshold:
        raise UserError(f"{problem}, required {threshold:g} (min_similarity); {names}")
    if len(known) > 1 and similarity[order[0]] - similarity[order[1]] < MIN_MARGIN:
        raise UserError(f"{problem}, too close to {known[order[1]]!r}; {names}")
    if changed := changed_meaning(text, nearest):
        raise UserError(f"{problem}, but a difference may change the meaning: {changed}; {names}")
    if sorted(normalise(text).split()) == sorted(normalise(nearest).split()):
        raise UserError(f"{problem}, which has the same words in another order; {names}")
    return nearest
