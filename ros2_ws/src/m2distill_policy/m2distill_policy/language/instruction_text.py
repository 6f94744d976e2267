"""Texts of instructions: which of them count as equal."""


def normalise(instruction: str) -> str:
    """Return the instruction without differences of case, white space and a final full stop."""
    return " ".join(instruction.casefold().split()).rstrip(".").rstrip()
