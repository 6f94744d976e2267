"""Texts as LaTeX prints them."""

LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def latex_text(text: str) -> str:
    """Return a text in which LaTeX's own characters are printed as they are."""
    return "".join(LATEX.get(c, c) for c in text)
