"""Encodings and repairs of packets."""

from __future__ import annotations

from dataserver import charset
from dataserver.packet import parse
from tests.support.failures import failures

TEXT = "<agent_data agent_name='a'><module><data>{}</data></module></agent_data>"


def declared(name: str) -> str:
    return f"<?xml version='1.0' encoding='{name}'?>\n{TEXT}"


def value(content: bytes) -> str | None:
    return parse(content).modules[0].value


def test_a_packet_is_read_in_the_encoding_it_declares() -> None:
    declarations = [
        ("UTF-8", "utf-8", "ñ€日本🎉"),
        ("utf-8", "utf-8-sig", "ñ€"),
        ("ISO-8859-1", "latin-1", "café ñ"),
        ("iso-8859-15", "iso8859-15", "€"),
        ("windows-1252", "cp1252", "€ “x”"),
        ("Windows-1251", "cp1251", "Привет"),
        ("Shift_JIS", "shift_jis", "日本語"),
        ("GB18030", "gb18030", "中文🎉"),
        ("UTF-16", "utf-16", "ñ🎉"),
        ("UTF-16", "utf-16-le", "ñ🎉"),
        ("UTF-16", "utf-16-be", "ñ🎉"),
    ]

    def check(case: tuple[str, str, str]) -> None:
        name, codec, text = case
        read = parse(declared(name).format(text).encode(codec))
        assert (read.modules[0].value, read.repairs) == (text, ())

    assert failures(check, declarations) == {}


def test_the_byte_order_mark_wins_over_the_declaration() -> None:
    assert value(declared("ISO-8859-1").format("ñ").encode("utf-16")) == "ñ"


def test_utf_16_is_recognised_without_mark_and_without_declaration() -> None:
    assert value(TEXT.format("ñ").encode("utf-16-be")) == "ñ"


def test_without_declaration_it_is_utf_8() -> None:
    assert value(TEXT.format("ñ€").encode()) == "ñ€"


def test_what_is_not_utf_8_is_read_as_windows_1252() -> None:
    for text in (TEXT, declared("UTF-8"), declared("US-ASCII")):
        read = parse(text.format("caf\xe9 €").encode("cp1252"))
        assert (read.modules[0].value, read.repairs) == ("café €", ("encoding",)), text


def test_the_five_bytes_that_windows_1252_lacks_are_c1_characters() -> None:
    content = TEXT.encode().replace(b"{}", b"\x81\x8d\x8f\x90\x9d\x80")
    assert value(content) == "\x81\x8d\x8f\x90\x9d€"


def test_an_unknown_encoding_is_utf_8_or_else_windows_1252() -> None:
    def check(name: str) -> None:
        for codec in ("utf-8", "cp1252"):
            read = parse(declared(name).format("né").encode(codec))
            assert (read.modules[0].value, read.repairs) == ("né", ("encoding",))

    assert failures(check, ["x-klingon", "rot13", "zip", "utf-7", "UTF-16", "idna"]) == {}


def test_a_byte_that_its_encoding_lacks_is_mended() -> None:
    content = declared("windows-1252").encode("cp1252").replace(b"{}", b"\x81\xe9")
    assert (value(content), parse(content).repairs) == ("\x81é", ("encoding",))


def test_a_character_cut_at_the_end_is_left_out() -> None:
    assert charset.decode("ab€".encode()[:-1]) == ("ab", False)
    assert charset.decode("ab🎉".encode("utf-16")[:-1]) == ("ab", False)


def test_latin_1_keeps_all_256_characters_but_those_xml_forbids() -> None:
    text = "".join(map(chr, range(0x80, 0x100)))
    assert value(declared("latin1").format(text).encode("latin-1")) == text
