"""Text as pdfLaTeX prints it in its own fonts, with no package."""

from __future__ import annotations

import re

#: Characters that mean something to LaTeX, or that its fonts lack.
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # A command for it is missing in the usual font encoding, and the sign itself is a command to
    # some languages of babel.
    '"': r"\texttt{\char34}",
    # After the end of a row these two would be arguments of ``\\``.
    "[": "{[}",
    "*": "{*}",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
}

#: Characters that only mathematics has.
_SYMBOLS = {
    "·": r"\cdot",
    "±": r"\pm",
    "×": r"\times",
    "−": "-",
    "≥": r"\geq",
    "≤": r"\leq",
    "≠": r"\neq",
    "≈": r"\approx",
    "→": r"\rightarrow",
    "√": r"\surd",
    "∞": r"\infty",
    "°": r"^{\circ}",
    "₀": "_{0}",
    "²": "^{2}",
    "α": r"\alpha",
    "β": r"\beta",
    "γ": r"\gamma",
    "δ": r"\delta",
    "ε": r"\varepsilon",
    "η": r"\eta",
    "θ": r"\theta",
    "λ": r"\lambda",
    "μ": r"\mu",
    "µ": r"\mu",
    "π": r"\pi",
    "ρ": r"\rho",
    "σ": r"\sigma",
    "τ": r"\tau",
    "Δ": r"\Delta",
    "Σ": r"\Sigma",
}

#: The last character of Latin Extended-A; pdfLaTeX knows the letters up to here.
_LAST_LETTER = "\u017f"

_ESCAPES = _SPECIAL | {character: f"${name}$" for character, name in _SYMBOLS.items()}


def escape(text: str) -> str:
    """Text as LaTeX prints it; a character that it cannot print stands as its code, ``U+4E2D``.

    A list of values may be broken after its commas.
    """
    return re.sub(r",(?=\S)", r",\\allowbreak{}", "".join(map(_escaped, text)))


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    known = character.isprintable() and character <= _LAST_LETTER
    return character if known else rf"\texttt{{U+{ord(character):04X}}}"
