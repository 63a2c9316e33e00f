"""What is wrong with a packet's text that no XML parser would forgive, or notice in time.

Works on text, before any parsing: finds what can never become a packet, and mends the
mistakes that real agents make in their markup: characters in attributes of the root that
should be references, and names of encodings that XML does not allow.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dataserver.errors import PacketError, Reason

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_PROLOG: Final = re.compile(r"(?>[ \t\r\n]+|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
#: The XML declaration up to its end; no value in it may have a bracket.
_DECLARATION: Final = re.compile(r"<\?xml[ \t\r\n][^<>]*+[<>]")
_BEGINNINGS: Final = ("<agent_data", "<!--")
#: The root's name and its end, or a comment or instruction that has not ended yet.
_ROOT: Final = re.compile(r"<agent_data[\s/>]|<\?|<!--")
_TAG_START: Final = "<agent_data"
#: An attribute up to its value.  Here and below nothing is given back (``++``): a megabyte of
#: quotation marks must not be tried in a million ways.
_ATTRIBUTE: Final = r"[ \t\r\n]++([^ \t\r\n\"'<>/=]++)[ \t\r\n]*+=[ \t\r\n]*+"
_NEXT_VALUE: Final = re.compile(_ATTRIBUTE + r"([\"'])")
#: The root's tag, if all quotation marks in it are where they belong.
_ROOT_TAG: Final = re.compile(
    rf"{_TAG_START}(?:{_ATTRIBUTE}(?>\"[^\"]*+\"|'[^']*+'))++[ \t\r\n]*+/?>"
)
_TAG_END: Final = re.compile(r"[ \t\r\n]*+/?>")
#: What may stand after the last whole value of a tag that has not ended yet.
_CUT: Final = re.compile(r"[ \t\r\n]*+(?:/|[^ \t\r\n\"'<>/=]++[ \t\r\n]*+(?:=[ \t\r\n]*+)?)?\Z")
#: A quotation mark that ends a value, since another attribute, or the end of the tag, follows.
_VALUE_ENDS: Final = {
    mark: re.compile(rf"{mark}(?=[ \t\r\n]*+/?>[ \t\r\n]*+(?:<|\Z)|{_ATTRIBUTE}[\"'])")
    for mark in "\"'"
}
#: Where a value with quotation marks inside has one of these, it may have ended before.
_DOUBTFUL: Final = {mark: re.compile(rf"=[ \t\r\n]*+{mark}|<[A-Za-z/!?]") for mark in "\"'"}
_REFERENCES: Final = {'"': "&quot;", "'": "&apos;"}
_ENCODING: Final = re.compile(
    r"(<\?xml[ \t\r\n][^>]{0,200}?encoding[ \t\r\n]*+=[ \t\r\n]*+)([\"'])([^\"'<>]*+)\2"
)
_ENCODING_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
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


class Mended(NamedTuple):
    """A text with its root's tag mended; ``bare`` names the attribute with a bare quotation mark.

    ``text`` is the same object where there was nothing to mend.  ``is_cut``: the text may be
    the beginning of one whose root's tag has not come to its end.
    """

    text: str
    bare: str = ""
    is_cut: bool = False


def mend_root(text: str, start: int, most: int) -> Mended:
    """``text`` with ``&``, ``<`` and quotation marks escaped in its root's attributes.

    The root begins at ``start``.  Real references stay.  A quotation mark of the kind that
    encloses the value is one of its characters if what follows could not follow its end; only
    where the tag cannot be read otherwise, and not where it would be a guess.

    Raises PacketError (Reason.MALFORMED) where a tag with such marks has over ``most`` attributes:
    :func:`refuse_crowd` does not find those that a bare mark hides.
    """
    tag = _ROOT_TAG.match(text, start)
    if tag is None:
        return _requoted(text, start, most)
    escaped = _QUOTED.sub(lambda value: _escaped(value[0]), tag[0])
    return Mended(text if escaped == tag[0] else text[:start] + escaped + text[tag.end() :])


def _requoted(text: str, start: int, most: int) -> Mended:
    """The same for a tag that has quotation marks where they do not belong, or no end."""
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
        if mark in value:
            if _DOUBTFUL[mark].search(value):
                return Mended(text)
            bare = bare or begin[1]
        if last is None:
            return Mended(text, is_cut=True)
        parts += (begin[0], _escaped(value).replace(mark, _REFERENCES[mark]), mark)
        place = last.end()
    if not bare:  # nothing but the tag's name, or what only a parser can judge
        return Mended(text)
    return Mended("".join((*parts, end[0], text[end.end() :])), bare)


def _escaped(value: str) -> str:
    return _BARE_AMPERSAND.sub("&amp;", value).replace("<", "&lt;")


def name_encoding(text: str) -> str:
    """``text`` whose declaration names an encoding as XML allows; the same object if it did."""
    found = _ENCODING.match(text)
    if found is None or _ENCODING_NAME.fullmatch(found[3]):
        return text
    return f"{found[1]}{found[2]}UTF-8{found[2]}{text[found.end() :]}"
