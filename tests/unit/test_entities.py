"""Entities: the table equals Pandora's, and names are cleaned as its golden rows show."""

from __future__ import annotations

from pathlib import Path

from dataserver.packet.parse import parse
from dataserver.rules.entities import TABLE, clean_name, cut_scripts, decode, encode

TESTS = Path(__file__).parents[1]


def test_the_table_is_pandoras() -> None:
    lines = (TESTS / "pandora" / "entities.tsv").read_text().splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    assert {int(code, 16): entity for code, entity in rows} == TABLE


def test_every_entity_of_the_table_is_decoded() -> None:
    for code, entity in TABLE.items():
        assert decode(entity) == chr(code)
        assert encode(chr(code)) == entity


def test_names_are_stored_as_the_golden_rows_show() -> None:
    case = TESTS / "golden" / "names"
    packets = [parse(file.read_bytes()) for file in sorted((case / "in" / "000").iterdir())]
    modules = {encode(clean_name(m.name)) for packet in packets for m in packet.modules}
    agents = {encode(cut_scripts(packet.agent_name)) for packet in packets}
    rows = (case / "expected" / "modules.tsv").read_text().splitlines()[1:]
    # "case" and "CASE" are one module for the collation of MySQL.
    assert modules - {"case"} == {row.split("\t")[1] for row in rows}
    assert agents == {row.split("\t")[0] for row in rows}


def test_other_entities_are_decoded_and_what_is_none_stays() -> None:
    texts = {
        "&eacute;&nbsp;&copy;&hearts;": "é\xa0©♥",
        "&#233;&#xE9;&#x1F389;&#39;&#039;": "éé🎉''",
        "&#x80;&#x01;": "\x80\x01",
        "a &b c; &;&#;&#x;": "a &b c; &;&#;&#x;",
        "&unheardof;&#xD800;&#1114112;&#x110000;": "&unheardof;&#xD800;&#1114112;&#x110000;",
        "&amp;lt;": "&lt;",
        "&lt": "&lt",
    }
    assert {stored: decode(stored) for stored in texts} == texts


def test_letters_outside_of_the_table_stay() -> None:
    assert encode("Łódź日本🎉%ç\n") == "Ł&oacute;dź日本🎉%ç\n"


def test_an_entity_in_a_name_is_text() -> None:
    assert encode("&amp;") == "&amp;amp;"


def test_a_long_text_is_encoded_like_a_short_one() -> None:
    assert encode("a b" * 500) == "a&#x20;b" * 500


def test_script_tags_are_cut_out_of_names() -> None:
    clean = {
        "script<script>alert(1)</script>": "scriptalert(1)",
        'a<SCRIPT type="x">b</Script>c': "abc",
        "<tag>": "<tag>",
        "<script": "<script",
        "</script >x": "x",
    }
    assert {name: cut_scripts(name) for name in clean} == clean
    assert {name: clean_name(name) for name in clean} == clean


def test_line_ends_are_cut_out_of_module_names_before_script_tags() -> None:
    assert clean_name("\r\nnew\nli\rne <scr\nipt>") == "newline "


def test_blanks_of_names_stay() -> None:
    assert clean_name(" a\tb ") == " a\tb "


def test_a_name_full_of_unfinished_script_tags_is_cut_in_linear_time() -> None:
    # In quadratic time this would take hours.
    text = "<script" * 1_000_000
    assert cut_scripts(text) == text
    assert cut_scripts(f"{text}>rest") == "rest"
