"""Decoding a packet: finding the encoding of its bytes, and their text.

The encoding is determined by, in this order: a byte order mark, the pattern of UTF-16 without one,
the XML declaration, or else UTF-8.  Invalid bytes are replaced one by one and the text around
them is kept: they are read as Windows-1252, in which every byte is a character.
Names of encodings are translated by :mod:`.encoding_names`.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final, NamedTuple

from dataserver.packet import encoding_names
from dataserver.packet.encoding_names import UTF_8

#: The result of :func:`charset` for a declaration with an unknown encoding.
UNKNOWN: Final = ""

#: The first two bytes that only UTF-16 can have: a byte order mark, or ``<`` and a zero.
_WIDE: Final = {
    b"\xff\xfe": "utf_16_le",
    b"\xfe\xff": "utf_16_be",
    b"<\0": "utf_16_le",
    b"\0<": "utf_16_be",
}
#: A file of one byte may be the first half of a byte order mark.
_HALF_MARKS: Final = (b"\xff", b"\xfe")
_MARK: Final = "\ufeff"

_DECLARED: Final = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')""")
#: Longer declarations are ignored.
_LONGEST_DECLARATION: Final = 256
#: Maximum length of an unknown name in a message.
_LONGEST_NAME: Final = 40


class Decoded(NamedTuple):
    """A text, and a description of the repairs that were necessary (empty: none)."""

    text: str
    repairs: str


def _windows_1252() -> str:
    """The 256 characters of Windows-1252; its five undefined bytes are C1 characters."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))


_WINDOWS_1252_TABLE: Final = _windows_1252()
#: Python's "surrogateescape" character of each byte, and the character to use instead.
_ESCAPED: Final = {0xDC00 + byte: _WINDOWS_1252_TABLE[byte] for byte in range(0x80, 0x100)}


def charset(content: bytes) -> str:
    """The name of the Python codec that ``content`` declares, or ``UNKNOWN``.

    UTF-8 if it declares none, and also for ASCII, which is a part of it.
    """
    wide = _WIDE.get(content[:2])
    if wide is not None:
        return wide
    if not content.startswith(b"<?xml"):
        return UTF_8  # also after a byte order mark, whatever the declaration
    return _codec(_declaration(content))


def is_wide(content: bytes) -> bool:
    """Whether ``content`` begins as UTF-16 does."""
    return content[:2] in _WIDE


def decode(content: bytes) -> Decoded:
    """The text of ``content`` without byte order mark, and how it was repaired.

    A character cut off at the end is omitted.  Raises UnicodeDecodeError for invalid UTF-16,
    which cannot be repaired.
    """
    if content in _HALF_MARKS:
        return Decoded("", "")
    codec = charset(content)
    if codec in _WIDE.values():
        return Decoded(_decode_prefix(content, codec).removeprefix(_MARK), "")
    if codec == UNKNOWN:
        name = _declared(_declaration(content)) or ""
        problem = "is not the one it is in" if encoding_names.is_wide(name) else "is not known"
        text, bad = decode_utf_8(content)
        repairs = f"its encoding {name[:_LONGEST_NAME]!a} {problem}: read as UTF-8"
        return Decoded(
            text, repairs if bad is None else f"{repairs}; {_bad_bytes_text(content, bad)}"
        )
    if codec == UTF_8:
        text, bad = decode_utf_8(content)
        return Decoded(
            text,
            "" if bad is None else f"it is not UTF-8 throughout: {_bad_bytes_text(content, bad)}",
        )
    return _in_another(content, codec)


def decode_utf_8(content: bytes) -> tuple[str, int | None]:
    """The text of ``content``, without byte order mark, and where its first bad byte is.

    Each invalid byte becomes its character in Windows-1252.  The second is None if all are valid.
    A character cut off at the end is omitted.
    """
    try:
        return _decode_prefix(content, UTF_8).removeprefix(_MARK), None
    except UnicodeDecodeError as error:
        return _decode_lossy(content, UTF_8).removeprefix(_MARK), error.start


def _in_another(content: bytes, codec: str) -> Decoded:
    """The text of ``content``, which declares ``codec`` (not UTF-8 nor UTF-16)."""
    try:
        return Decoded(_decode_prefix(content, codec), "")
    except UnicodeDecodeError as error:
        bad = error.start
    problem = f"it is not in its encoding {_declared(_declaration(content))!a}"
    try:
        return Decoded(_decode_prefix(content, UTF_8), f"{problem}: read as UTF-8")
    except UnicodeDecodeError:
        pass
    try:
        text = _decode_lossy(content, codec)
    except UnicodeDecodeError:  # in stateful encodings, ASCII bytes may be invalid
        text = _decode_lossy(content, UTF_8)
    return Decoded(text, f"{problem}: {_bad_bytes_text(content, bad)}")


def _bad_bytes_text(content: bytes, bad: int) -> str:
    where = f"the first is {content[bad]:02X} at offset {bad}"
    return f"bytes that do not fit are read as Windows-1252 ({where})"


def _decode_prefix(content: bytes, codec: str, errors: str = "strict") -> str:
    """The text of ``content``, which may end inside a character."""
    try:
        return codecs.getincrementaldecoder(codec)(errors).decode(content)
    except UnicodeDecodeError:
        raise
    except UnicodeError:  # an escape sequence at the end is too long for the decoder's state
        return content.decode(codec, errors)


def _decode_lossy(content: bytes, codec: str) -> str:
    """The text of ``content`` with each byte that is invalid in ``codec`` replaced.

    Python decodes such bytes to lone surrogates, which no codec produces otherwise.
    """
    return _decode_prefix(content, codec, "surrogateescape").translate(_ESCAPED)


def _declaration(content: bytes) -> bytes:
    return content[: content.find(b"?>", 0, _LONGEST_DECLARATION) + 1]


@lru_cache(maxsize=128)
def _codec(declaration: bytes) -> str:
    name = _declared(declaration)
    return UTF_8 if name is None else encoding_names.codec_for(name) or UNKNOWN


def _declared(declaration: bytes) -> str | None:
    match = _DECLARED.match(declaration)
    return None if match is None else (match[1] or match[2] or b"").decode("latin-1").strip()
