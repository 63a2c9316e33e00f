"""Any bytes give a Packet or a PacketError; every beginning of a packet is one."""

from __future__ import annotations

import re
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from dataserver.errors import IncompletePacket, PacketError
from dataserver.model import Packet
from dataserver.packet.encoding_names import CODECS
from dataserver.packet.parse import ends_complete, parse
from dataserver.rules.entities import decode, encode
from tests.support.randomness import examples

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*/in/*/*.data"))
REAL = [file.read_bytes() for file in GOLDEN if file.parts[-4] in {"real", "encodings", "names"}]

#: What a mutation puts in: pieces of markup that mean something to a parser.
MARKUP = rb"""< > & ' " /> --> <!-- <? ?> <![CDATA[ ]]> <!DOCTYPE &#0; &x; <a:b> xmlns='u'
    <agent_data </agent_data> encoding='UTF-16'""".split()
BYTES = [b"\0", b"\x1b", b"\x1b$", b"\x0e", b"\xc3", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80"]
PIECES = st.sampled_from([*MARKUP, *BYTES]) | st.binary(max_size=8)

#: Characters that XML allows.
TEXT = st.text(
    st.characters(
        codec="utf-8",
        exclude_categories=("Cs", "Cc"),
        include_characters="\t\n",
        exclude_characters="\ufffe\uffff",
    ),
    max_size=12,
)
LATIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)
ENCODINGS = st.sampled_from(["UTF-8", "ISO-8859-1", "windows-1252", "UTF-16", ""])


def outcome(content: bytes) -> Packet | PacketError:
    """What ``parse`` does; any other error than PacketError goes through."""
    try:
        return parse(content)
    except PacketError as error:
        return error


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Valid packets in several encodings, with everything that a cut can go through."""
    encoding = draw(ENCODINGS)
    text = LATIN if encoding in {"ISO-8859-1", "windows-1252"} else TEXT
    bare = draw(st.sampled_from(["", " description='R&D <x> &amp;'", ' group="a>b \'&lt;"']))
    forms = {
        "cdata": lambda value: "<![CDATA[" + value.replace("]]>", "") + "]]>",
        "text": escape,
        "comment": lambda value: "a<!-- </agent_data> -->" + escape(value),
        "references": lambda value: "".join(f"&#{ord(char)};" for char in value),
    }
    modules = "".join(
        f"<module a={quoteattr(value)}><name>n</name><data>{forms[form](value)}</data></module>"
        for form, value in draw(st.lists(st.tuples(st.sampled_from(sorted(forms)), text)))
    )
    declaration = f"<?xml version='1.0' encoding='{encoding}'?>" if encoding else ""
    name = quoteattr("x" + draw(text))
    document = (
        f"{declaration}{draw(st.sampled_from(['', ' ', '<!-- <a> -->']))}"
        f"<agent_data agent_name={name}{bare}>{modules}</agent_data>\n"
    )
    codec = {"windows-1252": "cp1252"}.get(encoding, encoding or "utf-8")
    return document.encode(codec, "xmlcharrefreplace")


@given(st.binary(max_size=300))
def test_any_bytes_give_a_packet_or_a_packet_error(content: bytes) -> None:
    outcome(content)


@given(st.lists(PIECES, max_size=12))
def test_any_pieces_of_markup_give_a_packet_or_a_packet_error(pieces: list[bytes]) -> None:
    outcome(b"".join(pieces))
    outcome(b"<agent_data agent_name='a'>" + b"".join(pieces) + b"</agent_data>")


@given(st.sampled_from(sorted(CODECS)), st.lists(PIECES, max_size=12))
def test_any_bytes_in_any_encoding_give_a_packet_or_a_packet_error(
    codec: str, pieces: list[bytes]
) -> None:
    content = f"<?xml version='1.0' encoding='{codec}'?><agent_data agent_name='a'>".encode()
    outcome(content + b"".join(pieces))
    outcome(content + b"".join(pieces) + b"</agent_data>")


@settings(max_examples=examples(200, 5000))
@given(st.sampled_from(REAL), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), PIECES)))
def test_a_damaged_packet_gives_a_packet_or_a_packet_error(
    content: bytes, damages: list[tuple[float, int, bytes]]
) -> None:
    for place, length, piece in damages:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + length :]
    outcome(content)


@settings(max_examples=examples(100, 1500))
@given(packets(), st.data())
def test_every_beginning_of_a_packet_is_incomplete(content: bytes, data: st.DataObject) -> None:
    whole = parse(content)
    cuts = data.draw(st.sets(st.integers(0, len(content) - 1), max_size=60))
    for cut in cuts:
        found = outcome(content[:cut])
        if isinstance(found, Packet):
            # Only white space is missing, or the second half of its UTF-16 character.
            assert found == whole
            assert not content[cut:].strip(b" \n\0")
        else:
            assert isinstance(found, IncompletePacket), (cut, found)


#: Pieces of an attribute's value, and of what surrounds values.
IN_TAGS = st.sampled_from(["'", '"', "=", " ", "\n", "x", " b=", "<", ">", "/", "&", "it's", "é"])


@settings(max_examples=examples(200, 5000))
@given(st.lists(IN_TAGS, max_size=12).map("".join), st.sampled_from("\"'"), st.floats(0, 1))
@example("it's>=", "'", 0.5)
@example("'/>", "'", 0.3)
def test_a_tag_with_any_quotation_marks_is_read_or_malformed_at_once(
    value: str, mark: str, place: float
) -> None:
    content = f"<agent_data a={mark}{value}{mark} agent_name='n'>\n<module/>\n</agent_data>"
    found = outcome(content.encode())
    assert not isinstance(found, IncompletePacket)
    if isinstance(found, Packet):
        if not found.repairs:  # an XML parser without any repair agrees
            assert etree.fromstring(content).get("agent_name") == found.agent_name
        # What is a packet in the end was always the beginning of one.
        cut = content[: int(place * (len(content) - 1))]
        assert isinstance(outcome(cut.encode()), IncompletePacket)


@settings(max_examples=examples(200, 5000))
@given(packets(), st.binary(min_size=1, max_size=3))
def test_bytes_that_are_in_no_encoding_change_nothing_around_them(
    content: bytes, bad: bytes
) -> None:
    # As an attribute of its own: the rest of the packet must be what it was.
    start = content.find(b"<agent_data ")
    if start < 0:
        return  # in UTF-16
    start += len(b"<agent_data ")
    inside = re.sub(rb"[\x00-\x7f]", b"\xff", bad)
    damaged = outcome(content[:start] + b"zz='" + inside + b"' " + content[start:])
    assert isinstance(damaged, Packet)
    assert damaged.modules == parse(content).modules
    assert damaged.agent_name == parse(content).agent_name


@given(st.sampled_from(REAL), st.floats(0, 1, exclude_max=True))
def test_every_beginning_of_a_real_packet_is_incomplete(content: bytes, place: float) -> None:
    beginning = content[: int(place * len(content.rstrip(b"\n\0")))]
    assert isinstance(outcome(beginning), IncompletePacket)


@given(packets())
def test_a_packet_ends_complete(content: bytes) -> None:
    assert ends_complete(content)


@given(st.binary(max_size=4) | st.text(" \t\r\n", max_size=4).map(str.encode))
def test_nothing_but_white_space_may_follow_a_packet(after: bytes) -> None:
    content = b"<agent_data agent_name='a'></agent_data>"
    found = outcome(content + after)
    assert isinstance(found, Packet) is (not after.strip(b" \t\r\n"))
    assert isinstance(found, PacketError) or found == parse(content)


@given(st.text())
def test_decoding_turns_encoding_back(text: str) -> None:
    assert decode(encode(text)) == text
