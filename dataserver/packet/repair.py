"""Repairing and checking a packet's text before it is parsed.

Finds text that can never become a packet, which an XML parser would notice late or never, and
repairs the mistakes that real agents make in their markup: characters in attributes of the root
that should be references, and names of encodings that XML does not allow.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dataserver.errors import PacketError, Reason

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PROLOG: Final = re.compile(r"(?>[ \t\r\n]+|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
#: The XML declaration up to its end; no value in it may contain an angle bracket.
_DECLARATION: Final = re.compile(r"<\?xml[ \t\r\n][^<>]*+[<>]")
_BEGINNINGS: Final = ("<agent_data", "<!--")
#: The root's name and the character after it, or an unfinished comment or instruction.
_ROOT: Final = re.compile(r"<agent_data[\s/>]|<\?|<!--")
_TAG_START: Final = "<agent_data"
#: An attribute up to its value.  Here and below, quantifiers are possessive (``++``): a megabyte of
#: quotation marks must not backtrack.
_ATTRIBUTE: Final = r"[ \t\r\n]++([^ \t\r\n\"'<>/=]++)[ \t\r\n]*+=[ \t\r\n]*+"
_NEXT_VALUE: Final = re.compile(_ATTRIBUTE + r"([\"'])")
#: The root's tag, if all its quotation marks are correct.
_ROOT_TAG: Final = re.compile(
    rf"{_TAG_START}(?:{_ATTRIBUTE}(?>\"[^\"]*+\"|'[^']*+'))++[ \t\r\n]*+/?>"
)
_TAG_END: Final = re.compile(r"[ \t\r\n]*+/?>")
#: What may follow the last complete value of an unfinished tag.
_CUT: Final = re.compile(r"[ \t\r\n]*+(?:/|[^ \t\r\n\"'<>/=]++[ \t\r\n]*+(?:=[ \t\r\n]*+)?)?\Z")
#: A quotation mark that ends a value, since another attribute or the end of the tag follows.
_VALUE_ENDS: Final = {
    mark: re.compile(rf"{mark}(?=[ \t\r\n]*+/?>[ \t\r\n]*+(?:<|\Z)|{_ATTRIBUTE}[\"'])")
    for mark in "\"'"
}
#: If a value that contains quotation marks contains one of these, it may have ended before.
_DOUBTFUL: Final = {mark: re.compile(rf"=[ \t\r\n]*+{mark}|<[A-Za-z/!?]") for mark in "\"'"}
_REFERENCES: Final = {'"': "&quot;", "'": "&apos;"}
_ENCODING: Final = re.compile(
    r"(<\?xml[ \t\r\n][^>]{0,200}?encoding[ \t\r\n]*+=[ \t\r\n]*+)([\"'])([^\"'<>]*+)\2"
)
_ENCODING_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
#: Everything that begins with ``<``; the group is a tag.  Each kind may lack its end, so that no
#: text is searched twice.
_MARKUP: Final = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)"
    r"|(<(?>[^\"'<>]+|\"[^\"]*\"|'[^']*')*+>?)",
    re.DOTALL,
)
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_BARE_AMPERSAND: Final = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)")


def root_start(text: str) -> int:
    """Where in ``text`` its root begins, or may begin once more of it has arrived.

    Raises PacketError (Reason.MALFORMED) for text that no continuation can make a packet, even
    if an XML parser would still wait for more.
    """
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        found = f"U+{ord(forbidden[0]):04X} at character {forbidden.start()}"
        raise PacketError(Reason.MALFORMED, f"it holds {found}, which XML forbids")
    declaration = _DECLARATION.match(text)
    if declaration and not declaration[0].endswith("?>"):
        before = text[: declaration.end() - 1]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        place = f"line {line}, column {column}"
        raise PacketError(Reason.MALFORMED, f"its XML declaration has no ?>, {place}")
    prolog = _PROLOG.match(text)
    start = prolog.end() if prolog else 0
    if text.startswith("<!D", start):
        raise PacketError(Reason.MALFORMED, "it has a document type, which no packet has")
    rest = text[start : start + max(map(len, _BEGINNINGS)) + 1]
    if not _ROOT.match(text, start) and not any(tag.startswith(rest) for tag in _BEGINNINGS):
        raise PacketError(Reason.MALFORMED, "its root is not agent_data")
    return start


def check_attribute_count(text: str, most: int) -> None:
    """Raise PacketError (Reason.MALFORMED) for more than ``most`` attributes in total.

    An XML parser needs about 500 bytes of memory for each, and has no limit of its own.
    Quotation marks are counted first, which is fast, but many of them may be in values.
    """
    if _most_attributes(text) <= most:
        return
    if sum(_most_attributes(markup[1] or "") for markup in _MARKUP.finditer(text)) > most:
        raise PacketError(Reason.MALFORMED, f"it has over {most} attributes")


def _most_attributes(text: str) -> int:
    return (text.count('"') + text.count("'")) // 2


class Mended(NamedTuple):
    """A text with its root's tag repaired; ``bare`` names the attribute with a bare quotation mark.

    ``text`` is the same object if there was nothing to repair.  ``is_cut``: the text may be
    the beginning of one, cut within the root's tag.
    """

    text: str
    bare: str = ""
    is_cut: bool = False


def mend_root(text: str, start: int, most: int) -> Mended:
    """``text`` with ``&``, ``<`` and quotation marks escaped in its root's attributes.

    The root begins at ``start``.  Valid references stay.  A quotation mark of the kind that
    encloses the value is part of the value if the text after it could not follow its end; only
    if the tag cannot be read otherwise, and not if it would be a guess.

    Raises PacketError (Reason.MALFORMED) if a tag with such marks has over ``most`` attributes:
    :func:`check_attribute_count` does not find those that a bare mark hides.
    """
    tag = _ROOT_TAG.match(text, start)
    if tag is None:
        return _requoted(text, start, most)
    escaped = _QUOTED.sub(lambda value: _escaped(value[0]), tag[0])
    return Mended(text if escaped == tag[0] else text[:start] + escaped + text[tag.end() :])


def _requoted(text: str, start: int, most: int) -> Mended:
    """:func:`mend_root` for a tag with misplaced quotation marks, or without an end."""
    place = start + len(_TAG_START)
    parts, bare, count = [text[:place]], "", 0
    while not (end := _TAG_END.match(text, place)):
        count += 1
        if count > most:
            raise PacketError(Reason.MALFORMED, f"its root has over {most} attributes")
        begin = _NEXT_VALUE.match(text, place)
        if begin is None:
            return Mended(text, is_cut=_CUT.match(text, place) is not None)
        mark = begin[2]
        last = _VALUE_ENDS[mark].search(text, begin.end())
        value = text[begin.end() : last.start() if last else len(text)]
        if last is None:
            return Mended(text, is_cut=True)
        if mark in value:
            if _DOUBTFUL[mark].search(value):
                return Mended(text)
            bare = bare or begin[1]
        parts += (begin[0], _escaped(value).replace(mark, _REFERENCES[mark]), mark)
        place = last.end()
    if not bare:  # only the tag's name, or an error for the parser to find
        return Mended(text)
    return Mended("".join((*parts, end[0], text[end.end() :])), bare)


def _escaped(value: str) -> str:
    return _BARE_AMPERSAND.sub("&amp;", value).replace("<", "&lt;")


def name_encoding(text: str) -> str:
    """``text`` with an encoding name that XML allows; the same object if it is unchanged."""
    found = _ENCODING.match(text)
    if found is None or _ENCODING_NAME.fullmatch(found[3]):
        return text
    return f"{found[1]}{found[2]}UTF-8{found[2]}{text[found.end() :]}"
