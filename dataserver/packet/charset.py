"""Which encoding a packet's bytes are in, and the text they stand for.

The order of belief: a byte order mark, the pattern of UTF-16 without one, the XML
declaration, UTF-8.  Bytes that do not belong to that encoding are mended one by one, and
what is around them is kept: in UTF-8 they are read as Windows-1252, in which every byte is
some character.  Names of encodings are translated by :mod:`.encoding_names`.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final, NamedTuple

from dataserver.packet import encoding_names
from dataserver.packet.encoding_names import UTF_8

#: The charset of a declaration that names none we know.
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
#: A declaration longer than this is not looked at.
_LONGEST_DECLARATION: Final = 256
#: Of a name that is not known, so much is repeated.
_LONGEST_NAME: Final = 40


class Decoded(NamedTuple):
    """A text, and what had to be mended to get it, for people; empty: nothing."""

    text: str
    mended: str


def _windows_1252() -> str:
    """The 256 characters of Windows-1252; its five undefined bytes are C1 characters."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))


_WINDOWS_1252_TABLE: Final = _windows_1252()
#: What Python's "surrogateescape" makes of a byte, and the character that is meant.
_ESCAPED: Final = {0xDC00 + byte: _WINDOWS_1252_TABLE[byte] for byte in range(0x80, 0x100)}


def charset(content: bytes) -> str:
    """The name of the Python codec that ``content`` says it is in, or ``UNKNOWN``.

    Without a say it is UTF-8; ASCII, being a part of it, is called that, too.
    """
    wide = _WIDE.get(content[:2])
    if wide is not None:
        return wide
    if not content.startswith(b"<?xml"):
        return UTF_8  # also after a byte order mark, whatever is declared
    return _codec(_declaration(content))


def is_wide(content: bytes) -> bool:
    """Whether ``content`` begins as UTF-16 does."""
    return content[:2] in _WIDE


def decode(content: bytes) -> Decoded:
    """The text of ``content`` without byte order mark, and how it had to be mended.

    A character cut off at the end is left out.  Raises UnicodeDecodeError for UTF-16 that
    is none: nothing else can be made of it.
    """
    if content in _HALF_MARKS:
        return Decoded("", "")
    codec = charset(content)
    if codec in _WIDE.values():
        return Decoded(_begun(content, codec).removeprefix(_MARK), "")
    if codec == UNKNOWN:
        name = _declared(_declaration(content)) or ""
        problem = "is not the one it is in" if encoding_names.is_wide(name) else "is not known"
        text, bad = decode_utf_8(content)
        mended = f"its encoding {name[:_LONGEST_NAME]!a} {problem}: read as UTF-8"
        return Decoded(text, mended if bad is None else f"{mended}; {_told(content, bad)}")
    if codec == UTF_8:
        text, bad = decode_utf_8(content)
        return Decoded(
            text, "" if bad is None else f"it is not UTF-8 throughout: {_told(content, bad)}"
        )
    return _in_another(content, codec)


def decode_utf_8(content: bytes) -> tuple[str, int | None]:
    """The text of ``content``, without byte order mark, and where its first bad byte is.

    Each byte that is no UTF-8 stands for its character in Windows-1252; None: there is none.
    A character cut off at the end is left out.
    """
    try:
        return _begun(content, UTF_8).removeprefix(_MARK), None
    except UnicodeDecodeError as error:
        return _mended(content, UTF_8).removeprefix(_MARK), error.start


def _in_another(content: bytes, codec: str) -> Decoded:
    """The text of ``content``, which declares ``codec``, neither UTF-8 nor UTF-16."""
    try:
        return Decoded(_begun(content, codec), "")
    except UnicodeDecodeError as error:
        bad = error.start
    problem = f"it is not in its encoding {_declared(_declaration(content))!a}"
    try:
        return Decoded(_begun(content, UTF_8), f"{problem}: read as UTF-8")
    except UnicodeDecodeError:
        pass
    try:
        text = _mended(content, codec)
    except UnicodeDecodeError:  # those that switch between states have bad bytes of ASCII
        text = _mended(content, UTF_8)
    return Decoded(text, f"{problem}: {_told(content, bad)}")


def _told(content: bytes, bad: int) -> str:
    where = f"the first is {content[bad]:02X} at offset {bad}"
    return f"bytes that do not fit are read as Windows-1252 ({where})"


def _begun(content: bytes, codec: str, errors: str = "strict") -> str:
    """The text of ``content``, which may end inside of a character."""
    try:
        return codecs.getincrementaldecoder(codec)(errors).decode(content)
    except UnicodeDecodeError:
        raise
    except UnicodeError:  # an escape sequence at the end is longer than the decoder remembers
        return content.decode(codec, errors)


def _mended(content: bytes, codec: str) -> str:
    """The text of ``content`` with each byte that ``codec`` does not know mended.

    Python keeps such bytes as lone surrogates, which no codec makes of anything else.
    """
    return _begun(content, codec, "surrogateescape").translate(_ESCAPED)


def _declaration(content: bytes) -> bytes:
    return content[: content.find(b"?>", 0, _LONGEST_DECLARATION) + 1]


@lru_cache(maxsize=128)
def _codec(declaration: bytes) -> str:
    name = _declared(declaration)
    return UTF_8 if name is None else encoding_names.codec_for(name) or UNKNOWN


def _declared(declaration: bytes) -> str | None:
    match = _DECLARED.match(declaration)
    return None if match is None else (match[1] or match[2] or b"").decode("latin-1").strip()
