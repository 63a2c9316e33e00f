"""Names as Pandora stores them: cleaned up, and encoded with HTML entities.

The table is Pandora's own, not HTML's: spaces and control characters have entities too
(a line feed has none), letters that are not listed stay as they are.  Values, descriptions and
addresses are stored without any encoding.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from html.entities import codepoint2name, html5
from typing import Final

#: Written as ``&#xHH;``: controls except the line feed, the space, and U+0080 to U+00BE.
_HEXADECIMAL: Final = (*range(0x0A), *range(0x0B, 0x21), *range(0x80, 0xBF))
#: Written in decimal, each with the digits that Pandora uses.
_DECIMAL: Final = {"'": "039", "(": "40", ")": "41", "\\": "92"}
#: Written with their HTML name.
_NAMED: Final = '"&<>' + "ÁÄÉËÍÏÑÓÖÚÜ" + "áäéëíïñóöúü" + "ŒœŠšŸ€"

#: Code point -> entity.
TABLE: Final[dict[int, str]] = (
    {code: f"&#x{code:02x};" for code in _HEXADECIMAL}
    | {ord(char): f"&#{digits};" for char, digits in _DECIMAL.items()}
    | {ord(char): f"&{codepoint2name[ord(char)]};" for char in _NAMED}
)

_SURROGATES: Final = range(0xD800, 0xE000)
_ENTITY: Final = re.compile(r"&(?:#[xX]([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([A-Za-z][A-Za-z0-9]*));")
_SCRIPT: Final = re.compile(r"</?script[^>]*>", re.IGNORECASE)
_LINE_ENDS: Final = str.maketrans("", "", "\r\n")
#: Longer texts (inventories) are not cached.
_CACHED_LENGTH: Final = 256


def encode(text: str) -> str:
    """``text`` as Pandora stores it: every character of the table as its entity.

    Entities in ``text`` are text like any other (their ``&`` is encoded), so that
    ``decode(encode(text)) == text`` for every text.
    """
    if len(text) <= _CACHED_LENGTH:
        return _encode_cached(text)
    return text.translate(TABLE)


@lru_cache(maxsize=16384)
def _encode_cached(text: str) -> str:
    return text.translate(TABLE)


def decode(text: str) -> str:
    """``text`` with the entities of the table, and all others of HTML, decoded.

    An invalid entity (an unknown name, a number that is not a character) stays as it is.
    """
    return _ENTITY.sub(_character, text) if "&" in text else text


def _character(match: re.Match[str]) -> str:
    """The character of one entity.

    Not :func:`html.unescape`, which drops control characters and reads U+0080 to U+009F
    as Windows-1252: for Pandora they are the code points themselves.
    """
    hexadecimal, decimal, name = match.groups()
    if name:
        return html5.get(f"{name};", match[0])
    code = int(hexadecimal, 16) if hexadecimal else int(decimal)
    return chr(code) if code <= sys.maxunicode and code not in _SURROGATES else match[0]


def cut_scripts(text: str) -> str:
    """``text`` without ``<script ...>`` and ``</script>`` tags; the text between them stays.

    Agent, alias, group, tag and inventory-module names are stored as
    ``encode(cut_scripts(name))``.
    """
    # No tag ends after the last ">", and searching there takes quadratic time.
    end = text.rfind(">") + 1
    return _SCRIPT.sub("", text[:end]) + text[end:] if end else text


def clean_name(text: str) -> str:
    """A module's name without line ends and script tags (:func:`cut_scripts`).

    Spaces stay, also leading and trailing ones.  Stored as ``encode(clean_name(name))``.
    """
    if "\n" in text or "\r" in text:
        text = text.translate(_LINE_ENDS)
    return cut_scripts(text)
