"""Bare ampersands, brackets and quotation marks in the root's attributes."""

from __future__ import annotations

import pytest

from dataserver.errors import IncompletePacket, PacketError, Reason
from dataserver.packet.parse import parse
from tests.support.failures import failures

#: Around attributes of the root, as an agent writes it.
HEAD = "<?xml version='1.0' encoding='UTF-8'?>\n<agent_data agent_name='a' "
BODY = ">\n<module><name>Load</name><data>1</data></module>\n</agent_data>\n"


def description(written: str) -> tuple[str | None, tuple[str, ...]]:
    read = parse(f"<agent_data agent_name='a' description={written}></agent_data>".encode())
    return read.description, read.repairs


def test_bare_characters_in_the_roots_attributes_are_meant_as_text() -> None:
    meant = {
        "'R&D'": "R&D",
        "'a & b < c > d'": "a & b < c > d",
        '"it\'s <b>bold</b> & so"': "it's <b>bold</b> & so",
        "'&nbsp;&'": "&nbsp;&",
        "'&amp; &#233; &#xe9; &lt; & &quot;&apos;&gt;'": "& é é < & \"'>",
        "'?a=1&b=2&amp;c'": "?a=1&b=2&c",
        "'&amp'": "&amp",
    }
    expected = {written: (text, ("attributes",)) for written, text in meant.items()}
    assert {written: description(written) for written in meant} == expected


def test_proper_references_are_no_repair() -> None:
    assert description("'&amp;&#38;&lt;'") == ("&&<", ())


def test_both_repairs_are_named() -> None:
    content = "<agent_data agent_name='a' description='é & b'></agent_data>".encode("latin-1")
    read = parse(content)
    assert (read.description, read.repairs) == ("é & b", ("encoding", "attributes"))


def test_a_comment_before_the_root_is_not_mended_in_its_place() -> None:
    content = b"<!-- <agent_data x='&'> --><agent_data agent_name='a&b'></agent_data>"
    assert parse(content).agent_name == "a&b"


def test_other_elements_attributes_are_not_mended() -> None:
    with pytest.raises(PacketError) as caught:
        parse(b"<agent_data agent_name='a'><module x='&'/></agent_data>")
    assert caught.value.reason is Reason.MALFORMED


# --- quotation marks ------------------------------------------------------------------------


def test_a_quotation_mark_that_cannot_end_its_value_is_a_character_of_it() -> None:
    meant = {
        "description='Bob's box' group='Servers'": "Bob's box",
        "group='g' description='Bob's'": "Bob's",
        "group='g' description='the boys'' ": "the boys'",
        "description='rock 'n' roll' group='g'": "rock 'n' roll",
        "description=''quoted'' group='g'": "'quoted'",
        "description='''": "'",
        'description="2.5" disk, 3.5" disk" group="g"': '2.5" disk, 3.5" disk',
        "description='R&D's &amp; <3' group='g'": "R&D's & <3",
        "description='it's\n a = b' \n\t group = \"g\"": "it's  a = b",
        "description='the boys' x=5 y' group='g'": "the boys' x=5 y",
        "description='it's a > b' group='g'": "it's a > b",
        "group='O'Brien's' description='D'Arcy's' custom_id='c'": "D'Arcy's",
    }

    def check(case: tuple[str, str]) -> None:
        attributes, text = case
        read = parse((HEAD + attributes + BODY).encode())
        assert (read.description, read.repairs) == (text, ("attributes",))
        assert "bare quotation mark" in read.remarks[0]
        assert read.modules[0].name == "Load"

    assert failures(check, meant.items()) == {}


def test_a_quotation_mark_that_leaves_two_readings_makes_it_malformed_at_once() -> None:
    tags = [
        "description='<b class='c'>bold</b>' group='g'",  # markup in a value
        "description='a='b' c' group='g'",  # what looks like an attribute in a value
        "description='its end is missing group='g'",
        "description='its end is missing, too",
        "description=\"of another kind' group='g'",
        "description='no blank'group='g'",
        "description='Bob's' description='twice'",
        "description=Bob's group='g'",
        "description='Bob's box' group='g' / ",
        "description='Bob's box' group='g'>text<a",
    ]

    def check(tag: str) -> None:
        with pytest.raises(PacketError, match=r"line \d+, column \d+") as caught:
            parse((HEAD + tag + BODY).encode())
        assert caught.value.reason is Reason.MALFORMED
        assert not isinstance(caught.value, IncompletePacket)

    assert failures(check, tags) == {}


def test_a_declaration_without_its_end_is_malformed_at_once() -> None:
    with pytest.raises(PacketError, match=r"declaration has no \?>, line 1, column 37") as caught:
        parse(b"<?xml version='1.0' encoding='UTF-8'>\n<agent_data agent_name='a'></agent_data>")
    assert not isinstance(caught.value, IncompletePacket)


def test_every_beginning_of_a_packet_that_will_be_mended_is_incomplete() -> None:
    content = (HEAD + "description='D'Arcy's > <3' group=\"2\" disk\"" + BODY).encode()
    assert parse(content).group == '2" disk'

    def check(cut: int) -> None:
        with pytest.raises(IncompletePacket):
            parse(content[:cut])

    assert failures(check, range(len(content) - 1)) == {}


def test_a_megabyte_of_quotation_marks_is_looked_at_once() -> None:
    # In quadratic time each of these takes hours.
    starts = ["a='", 'a="', "a='x' b='y's'"]
    fillings = ["'", "' ", "' n", "'>x", "'> ", "' b='", "a='b'c' ", " '\"", "='", "<'", " n ="]

    def check(case: tuple[str, str]) -> None:
        start, filling = case
        content = f"<agent_data {start}{filling * (1_000_000 // len(filling))}</agent_data>"
        with pytest.raises(PacketError) as caught:
            parse(content.encode())
        assert not isinstance(caught.value, IncompletePacket)

    assert failures(check, [(s, f) for s in starts for f in fillings]) == {}
