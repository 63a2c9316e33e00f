"""Parsing a packet: from the bytes of a file to a :class:`Packet`.

::

    packet      = agent_data @agent_name @timestamp @... { module | section }
    module      = { name | type | data | datalist | any other tag }
    datalist    = { data { value | timestamp } }
    section     = custom_fields { field { name | value } }
                | inventory { inventory_module { name | datalist { data } } }
                | events { event }
                | log_module { source | type | encoding | data }
                | any other element, kept as the XML it came in

The first of a repeated tag counts.  Text is kept unchanged, including white space; comments and
processing instructions are not part of it.  ``docs/packet-format.md`` has the details.

Any bytes give a Packet, or a PacketError that says why not; the beginning of a packet gives an
:class:`IncompletePacket`.  There are two ways of reading, with the same result: a fast one for
small, well-formed UTF-8 documents, and a careful one that decodes, repairs, checks limits and
finds the reason for an error.  Document types are refused, so there are no entities to expand and
nothing to fetch.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, cast

from lxml import etree

from dataserver.errors import IncompletePacket, PacketError, Reason
from dataserver.model import InventoryModule, Log, Module, Packet, Sample, Section
from dataserver.packet import charset, repair
from dataserver.packet.encoding_names import UTF_8
from dataserver.rules.entities import clean_name, cut_scripts

ROOT: Final = "agent_data"
#: The type of a module without one.
DEFAULT_TYPE: Final = "generic_data"

#: Limits of one packet: levels, elements, attributes of all elements, and of the root.
MAX_DEPTH: Final = 256
MAX_ELEMENTS: Final = 1_000_000
MAX_ATTRIBUTES: Final = 100_000
MAX_ROOT_ATTRIBUTES: Final = 1000
#: A packet up to this size (bytes) cannot exceed them, and libxml2 limits the depth itself.
_SMALL: Final = 5 * MAX_ATTRIBUTES
#: Bytes between two checks of the limits.
_CHUNK: Final = 65_536
#: Maximum length of a reason, since libxml2 may quote a name of any length.
_LONGEST_REASON: Final = 200
#: Maximum length of a name quoted in a remark.
_LONGEST_NAME: Final = 100

_WHITE_SPACE: Final = b" \t\r\n"
_USUAL_ENDS: Final = (b"</agent_data>", b"</agent_data>\n")
_END: Final = re.compile(rb"</agent_data\s*>|<agent_data(?:\s[^<]*)?/>")
#: Ends every unfinished construct of XML, except those that may contain the closing tag of the root
#: as text: a comment, an instruction, a CDATA section.
_PROBE: Final = b";\">'>"

#: Attributes of the root and the fields of Packet that they set.  Any other is ignored.
_ATTRIBUTES: Final = {
    "agent_name": "agent_name",
    "agent_alias": "alias",
} | {
    name: name
    for name in (
        *("timestamp", "timezone_offset", "interval", "os_name", "os_version", "version"),
        *("description", "group", "group_id", "group_password", "secondary_groups", "address"),
        *("parent_agent_name", "agent_mode", "custom_id", "url_address", "longitude", "latitude"),
        *("altitude", "position_description", "satellite_server", "server_name", "server_type"),
    )
}


#: Options of both parsers.  There are no entities, since a document type is refused beforehand;
#: still "internal", since with False lxml's feed() does not report undefined ones.
_OPTIONS: Final[dict[str, Any]] = {
    "encoding": "utf-8",
    "resolve_entities": "internal",
    "no_network": True,
    "load_dtd": False,
    "remove_comments": True,
    "remove_pis": True,
    "collect_ids": False,
}

#: Sections that have fields of their own in Packet.
_READ_SECTIONS: Final = frozenset({"custom_fields", "inventory", "events", "log_module"})
_LOG_TAGS: Final = ("source", "type", "encoding", "data")


class _NotSimple(Exception):
    """The document needs the careful way of reading."""


class _Read(NamedTuple):
    """A document's root, what was repaired to read it, and a description of the repairs."""

    root: etree._Element
    repairs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class _Local(threading.local):
    """The fast parser, one for each thread: threads that share one wait for each other."""

    def __init__(self) -> None:
        self.parser = etree.XMLParser(**_OPTIONS)


_LOCAL: Final = _Local()


def parse(content: bytes) -> Packet:
    """Parse ``content``, the whole content of a file.

    Raises IncompletePacket if it is the beginning of a packet (more bytes could complete it),
    and PacketError with Reason.MALFORMED or Reason.NO_AGENT if it is not a packet.
    """
    try:
        read = _Read(_read_quickly(content))
    except (etree.XMLSyntaxError, UnicodeDecodeError, _NotSimple):
        read = _read_carefully(content)
    return _packet(read, content)


def ends_complete(content: bytes) -> bool:
    """Whether ``content`` ends with the root's closing tag; white space may follow it.

    A cheap test that is certain only if False: then it is not a complete packet.  Otherwise it may
    still be cut inside a text that contains the tag, which only :func:`parse` finds out.
    """
    if content.endswith(_USUAL_ENDS):
        return True
    if charset.is_wide(content):
        try:
            content = charset.decode(content).text.encode()
        except UnicodeDecodeError:
            return False
    content = content.rstrip(_WHITE_SPACE)
    return _END.fullmatch(content, max(content.rfind(b"<"), 0)) is not None


def _read_quickly(content: bytes) -> etree._Element:
    """The root of a small, well-formed packet; after any error it must be read carefully."""
    codec = charset.charset(content)
    if codec == charset.UNKNOWN or len(content) > _SMALL or not ends_complete(content):
        raise _NotSimple
    data = content if codec == UTF_8 else content.decode(codec).encode()
    if b"<!DOCTYPE" in data:
        raise _NotSimple
    return etree.fromstring(data, _LOCAL.parser)


def _read_carefully(content: bytes) -> _Read:
    """The root of a packet that is large, not in UTF-8, not well-formed or incomplete."""
    try:
        text, repair_text = charset.decode(content)
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not in the encoding that it begins with: {error}") from error
    text = text.rstrip("\0")  # the file was given its size before its content
    if not text:
        raise IncompletePacket("the file is empty", reason=Reason.MALFORMED)
    try:
        return _read_text(text, repair_text, content)
    except IncompletePacket:
        raise
    except PacketError as error:
        if repair_text:  # possibly the cause
            raise PacketError(error.reason, f"{error.message}; {repair_text}") from error
        raise


def _read_text(text: str, repair_text: str, content: bytes) -> _Read:
    """The root of ``text``, decoded from ``content`` with the repairs in ``repair_text``."""
    repair.check_attribute_count(text, MAX_ATTRIBUTES)
    named = repair.name_encoding(text)
    whole = repair.mend_root(named, repair.root_start(named), MAX_ROOT_ATTRIBUTES)
    remarks = [repair_text] if repair_text else []
    if named is not text:
        remarks.append("the name of its encoding is not valid in XML")
    repairs = ("encoding",) * bool(remarks) + ("attributes",) * (whole.text is not named)
    is_complete = ends_complete(content)
    if whole.is_cut and not is_complete:
        raise IncompletePacket
    try:
        root = _read_bounded(whole.text.encode())
    except etree.XMLSyntaxError as error:
        raise _malformed(f"it is not well-formed XML: {error.msg}") from error
    if not is_complete:
        if ends_complete(content.rstrip(b"\0")):
            raise IncompletePacket("zero bytes follow the closing tag of the root")
        if not len(root) and whole.text.rstrip().endswith("/>"):
            # A value may go on behind it: <agent_data description='a/>b' ...
            raise IncompletePacket("its root has no closing tag")
        raise _malformed("something follows the closing tag of the root")
    if whole.bare:
        remarks.append(f"a bare quotation mark in its {whole.bare:.40} is read as text")
    return _Read(root, repairs, tuple(remarks))


def _malformed(message: str) -> PacketError:
    return PacketError(Reason.MALFORMED, message[:_LONGEST_REASON])


def _read_bounded(data: bytes) -> etree._Element:
    """The root of UTF-8 ``data``, checking the limits while it is read.

    Raises XMLSyntaxError if it is not well-formed, whatever may follow; IncompletePacket
    if it is well-formed so far; PacketError if it exceeds the limits.
    """
    parser = etree.XMLPullParser(events=("start", "end"), huge_tree=True, **_OPTIONS)
    depth = elements = 0
    for start in range(0, len(data), _CHUNK):
        parser.feed(data[start : start + _CHUNK])
        for event, _ in parser.read_events():
            if event == "end":
                depth -= 1
                continue
            depth += 1
            elements += 1
            if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
                raise _malformed(f"it has over {MAX_DEPTH} levels or {MAX_ELEMENTS} elements")
    if elements and not depth:
        return parser.close()
    if not ends_complete(data):
        raise IncompletePacket
    parser.feed(_PROBE)
    raise IncompletePacket("a comment, an instruction or a CDATA section has no end")


def _packet(read: _Read, content: bytes) -> Packet:
    """The packet of a document that was read from ``content``."""
    root, repairs, remarks = read
    if root.tag != ROOT:
        raise _malformed(f"its root is not {ROOT}")
    if len(root.attrib) > MAX_ROOT_ATTRIBUTES:  # lxml lists them in quadratic time
        raise _malformed(f"its root has over {MAX_ROOT_ATTRIBUTES} attributes")
    items = cast("list[tuple[str, str]]", root.items())
    attributes = {_ATTRIBUTES[key]: text for key, text in items if key in _ATTRIBUTES}
    name = attributes.pop("agent_name", "")
    if not cut_scripts(name) and not attributes.get("server_name"):
        raise PacketError(Reason.NO_AGENT, "it has no agent_name")
    if "<" in name and (remark := renamed("agent", name)):
        remarks += (remark,)
    modules: list[Module] = []
    others: list[etree._Element] = []
    for element in root:
        if element.tag == "module":
            modules.append(_module(element))
        else:
            others.append(element)
    if not others:  # most packets
        return Packet(
            agent_name=name,
            digest=_digest(content),
            modules=tuple(modules),
            repairs=repairs,
            remarks=remarks,
            **cast("dict[str, Any]", attributes),
        )
    logs = tuple(_logs(others))
    sections = tuple(_sections(others))
    unstored = Counter(["log_module"] * len(logs) + [section.name for section in sections])
    return Packet(
        agent_name=name,
        digest=_digest(content),
        modules=tuple(modules),
        custom_fields=tuple(_custom_fields(others)),
        inventory=tuple(_inventory(others)),
        logs=logs,
        events=tuple(_events(others)),
        sections=sections,
        repairs=repairs,
        remarks=remarks,
        unstored=tuple(unstored.items()),
        **attributes,
    )


def renamed(what: str, name: str) -> str:
    """A remark if the name of an agent or module is not stored as written; otherwise empty."""
    known = clean_name(name)
    if known == name:
        return ""
    written, stored = name[:_LONGEST_NAME], known[:_LONGEST_NAME]
    return f"{what} {written!a} is stored as {stored!a}, without <script> tags and line ends"


def _digest(content: bytes) -> bytes:
    """The content's identity in the ledger; :class:`Packet` says why without white space."""
    return hashlib.blake2b(content.rstrip(_WHITE_SPACE + b"\0"), digest_size=16).digest()


def _module(element: etree._Element) -> Module:
    """One module.  Hot path: visits each child once and calls no function for it."""
    tags: dict[str, str] = {}
    samples: tuple[Sample, ...] | None = None
    for child in element:
        tag = child.tag
        if tag == "datalist":
            samples = (samples or ()) + tuple(_samples(child))
        elif tag not in tags:
            tags[tag] = child.text or ""
    name = tags.pop("name", "")
    kind = tags.pop("type", "") or DEFAULT_TYPE
    value = tags.pop("data", None)
    if samples is None:
        return Module(name, kind, value, (), tags)
    return Module(name, kind, None, samples, tags)


def _samples(datalist: etree._Element) -> Iterator[Sample]:
    for data in datalist.iterchildren("data"):
        value = data.findtext("value")
        if value is not None:
            yield Sample(value, data.findtext("timestamp"))


def _custom_fields(elements: list[etree._Element]) -> Iterator[tuple[str, str]]:
    for section in elements:
        if section.tag == "custom_fields":
            for field in section.iterchildren("field"):
                yield field.findtext("name", ""), field.findtext("value", "")


def _inventory(elements: list[etree._Element]) -> Iterator[InventoryModule]:
    for section in elements:
        if section.tag == "inventory":
            for module in section.iterchildren("inventory_module"):
                rows = tuple(data.text or "" for data in module.iterfind("datalist/data"))
                yield InventoryModule(module.findtext("name", ""), rows)


def _events(elements: list[etree._Element]) -> Iterator[str]:
    for section in elements:
        if section.tag == "events":
            for event in section.iterchildren("event"):
                yield event.text or ""


def _logs(elements: list[etree._Element]) -> Iterator[Log]:
    for section in elements:
        if section.tag == "log_module":
            yield Log(*(section.findtext(tag, "") for tag in _LOG_TAGS))


def _sections(elements: list[etree._Element]) -> Iterator[Section]:
    for section in elements:
        if section.tag not in _READ_SECTIONS:
            xml = etree.tostring(section, encoding="unicode", with_tail=False)
            yield Section(section.tag, xml)
