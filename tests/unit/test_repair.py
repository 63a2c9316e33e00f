"""Bare ampersands and brackets in the root's attributes."""

from __future__ import annotations

import pytest

from dataserver.errors import PacketError, Reason
from dataserver.packet import parse


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
