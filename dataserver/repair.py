"""What is wrong with a packet's text that no XML parser would forgive, or notice in time.

Works on text, before any parsing: finds what can never become a packet, and mends the one
mistake that real agents make in their markup.
"""

from __future__ import annotations

import re
from typing import Final

from dataserver.errors import PacketError, Reason

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PROLOG: Final = re.compile(r"(?>[ \t\r\n]+|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_BEGINNINGS: Final = ("<agent_data", "<!--")
#: The root's name and its end, or a comment or instruction that has not ended yet.
_ROOT: Final = re.compile(r"<agent_data[\s/>]|<\?|<!--")
_ROOT_TAG: Final = re.compile(r"<agent_data(?=\s)(?>[^\"'>]+|\"[^\"]*\"|'[^']*')*+>")
#: Everything that begins with ``<``; a tag is the group.  Each part may lack its end, so that
#: none is looked for twice.
_MARKUP: Final = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)"
    r"|(<(?>[^\"'<>]+|\"[^\"]*\"|'[^']*')*+>?)",
    re.DOTALL,
)
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_BARE_AMPERSAND: Final = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)")


def root_start(text: str) -> int:
    """Where in ``text`` its root begins, or may begin once more of it has come.

    Raises PacketError (Reason.MALFORMED) for what no continuation can make a packet, also
    where an XML parser would still wait for more.
    """
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        found = f"U+{ord(forbidden[0]):04X} at character {forbidden.start()}"
        raise PacketError(Reason.MALFORMED, f"it holds {found}, which XML forbids")
    prolog = _PROLOG.match(text)
    start = prolog.end() if prolog else 0
    if text.startswith("<!D", start):
        raise PacketError(Reason.MALFORMED, "it has a document type, which no packet has")
    rest = text[start : start + max(map(len, _BEGINNINGS)) + 1]
    if not _ROOT.match(text, start) and not any(tag.startswith(rest) for tag in _BEGINNINGS):
        raise PacketError(Reason.MALFORMED, "its root is not agent_data")
    return start


def refuse_crowd(text: str, most: int) -> None:
    """Raise PacketError (Reason.MALFORMED) for more than ``most`` attributes in all.

    An XML parser needs some 500 bytes of memory for each, and has no limit of its own.
    Quotes are counted first, which is quick; many of them may also be in values.
    """
    if _attributes_at_most(text) <= most:
        return
    if sum(_attributes_at_most(markup[1] or "") for markup in _MARKUP.finditer(text)) > most:
        raise PacketError(Reason.MALFORMED, f"it has over {most} attributes")


def _attributes_at_most(text: str) -> int:
    return (text.count('"') + text.count("'")) // 2


def escape_attributes(text: str, start: int) -> str:
    """``text`` with bare ``&`` and ``<`` escaped in the attributes of its root at ``start``.

    Real references stay.  The same object where there is nothing to escape, and while the
    root's tag has not come to its end.
    """
    tag = _ROOT_TAG.match(text, start)
    if tag is None:
        return text
    escaped = _QUOTED.sub(_escape_value, tag[0])
    return text if escaped == tag[0] else text[:start] + escaped + text[tag.end() :]


def _escape_value(quoted: re.Match[str]) -> str:
    return _BARE_AMPERSAND.sub("&amp;", quoted[0]).replace("<", "&lt;")
