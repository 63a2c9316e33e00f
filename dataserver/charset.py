"""Which encoding a packet's bytes are in, and the text they stand for.

The order of belief: a byte order mark, the pattern of UTF-16 without one, the XML
declaration, UTF-8.  What turns out not to be in its encoding is mended: read as UTF-8 if it
is that, else as Windows-1252, in which every byte is some character.
"""

from __future__ import annotations

import codecs
import re
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

UTF_8: Final = "utf_8"
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

_DECLARED: Final = re.compile(
    rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]{0,39})["']"""
)
#: A declaration longer than this is not looked at.
_LONGEST_DECLARATION: Final = 256

#: The codecs that a declaration may ask for.  A list, since Python also has codecs that are
#: no character sets, and remembers for ever every name that it was asked for in vain.
_ACCEPTED: Final = frozenset(
    {UTF_8, "latin_1", "cp437", "cp850", "cp852", "cp866", "cp874", "cp932", "cp949", "cp950"}
    | {f"iso8859_{part}" for part in (*range(2, 12), *range(13, 17))}
    | {f"cp{page}" for page in range(1250, 1259)}
    | {"koi8_r", "koi8_u", "mac_roman", "mac_cyrillic", "tis_620"}
    | {"shift_jis", "euc_jp", "euc_kr", "gb2312", "gbk", "gb18030", "big5"}
)


def _windows_1252() -> str:
    """The 256 characters of Windows-1252; its five undefined bytes are C1 characters."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(256))


_WINDOWS_1252: Final = _windows_1252()


def charset(content: bytes) -> str:
    """The name of the Python codec that ``content`` says it is in, or ``UNKNOWN``.

    Without a say it is UTF-8; ASCII, being a part of it, is called that, too.
    """
    wide = _WIDE.get(content[:2])
    if wide is not None:
        return wide
    start = 3 if content.startswith(codecs.BOM_UTF8) else 0
    if not content.startswith(b"<?xml", start):
        return UTF_8
    return _declared(content[start : content.find(b"?>", start, start + _LONGEST_DECLARATION) + 1])


def is_wide(content: bytes) -> bool:
    """Whether ``content`` begins as UTF-16 does."""
    return content[:2] in _WIDE


def decode(content: bytes) -> tuple[str, bool]:
    """The text of ``content`` without byte order mark, and whether it had to be mended.

    A character cut off at the end is left out.  Raises UnicodeDecodeError for UTF-16 that
    is none: nothing else can be made of it.
    """
    if content in _HALF_MARKS:
        return "", False
    named = charset(content)
    if named in _WIDE.values():
        return _begun(content, named).removeprefix(_MARK), False
    for codec in filter(None, (named, UTF_8)):
        try:
            return _begun(content, codec).removeprefix(_MARK), codec != named
        except UnicodeDecodeError:
            continue
    return codecs.charmap_decode(content, "strict", _WINDOWS_1252)[0], True


def _begun(content: bytes, codec: str) -> str:
    """The text of ``content``, which may end inside of a character."""
    return codecs.getincrementaldecoder(codec)().decode(content)


@lru_cache(maxsize=128)
def _declared(declaration: bytes) -> str:
    match = _DECLARED.match(declaration)
    if match is None:
        return UTF_8
    name = normalize_encoding(match[1].decode("ascii")).lower()
    codec = aliases.get(name, name)
    if codec == "ascii":
        return UTF_8
    return codec if codec in _ACCEPTED else UNKNOWN
