"""Texts as pictures show them: whatever came from a packet, bounded and without tricks; pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

#: Stands for what cannot be shown.
REPLACEMENT = "�"
_ELLIPSIS = "…"


def shown(text: str, longest: int) -> str:
    """``text`` in one line of at most ``longest`` characters.

    What moves a cursor, turns the direction of writing or is no character at all is replaced.
    """
    # Cut first: it may be of any length.
    cut = text[: longest + 1]
    clean = "".join(map(_clean, cut))
    return clean if len(clean) <= longest else clean[: longest - 1] + _ELLIPSIS


def _clean(char: str) -> str:
    if char.isspace():
        return " "
    # C: control, format (direction), surrogates, private, unassigned.
    return REPLACEMENT if unicodedata.category(char)[0] == "C" else char


def percent(part: float) -> str:
    """A share of 0 to 1; what is not all is never rounded to all, nor some to none."""
    if 0 < part < 0.001:
        return "< 0.1 %"
    if 0.999 < part < 1:
        return "> 99.9 %"
    return f"{100 * part:.4g} %" if part in (0, 1) else f"{100 * part:.1f} %"


def shares(parts: Mapping[str, float]) -> str:
    """The statuses that there are, each with its share."""
    return ", ".join(f"{name} {percent(part)}" for name, part in parts.items() if part > 0)


def count(number: float) -> str:
    """A whole number with commas."""
    return f"{round(number):,}"
