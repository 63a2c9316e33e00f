"""Encodings and repairs of packets."""

from __future__ import annotations

import codecs

import pytest

from dataserver.errors import PacketError
from dataserver.packet import charset
from dataserver.packet.encoding_names import CODECS, codec_for
from dataserver.packet.parse import parse
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


def test_the_byte_order_mark_of_utf_8_wins_over_any_declaration() -> None:
    def check(name: str) -> None:
        read = parse(codecs.BOM_UTF8 + declared(name).format("Größe").encode())
        assert (read.modules[0].value, read.repairs) == ("Größe", ())

    names = ["ISO-8859-1", "windows-1252", "Shift_JIS", "UTF-16", "x-klingon", "IBM-037"]
    assert failures(check, names) == {}


def test_without_declaration_it_is_utf_8() -> None:
    assert value(TEXT.format("ñ€").encode()) == "ñ€"


def test_a_byte_that_is_not_utf_8_is_read_as_windows_1252() -> None:
    for text in (TEXT, declared("UTF-8"), declared("US-ASCII")):
        read = parse(text.format("caf\xe9 €").encode("cp1252"))
        assert (read.modules[0].value, read.repairs) == ("café €", ("encoding",)), text


def test_what_is_utf_8_around_a_bad_byte_stays_what_it_is() -> None:
    mixed = (
        "<?xml version='1.0' encoding='UTF-8'?>\r\n<agent_data agent_name='ps-ü' interval='300'>"
        "\r\n<module><name><![CDATA[Grö\udcdfe]]></name><data>日本 \udc80\udcc3</data></module>"
        "\r\n</agent_data>\r\n"
    ).encode(errors="surrogateescape")
    read = parse(mixed)
    assert read.agent_name == "ps-ü"
    assert (read.modules[0].name, read.modules[0].value) == ("Größe", "日本 €Ã")
    assert read.repairs == ("encoding",)
    (remark,) = read.remarks
    assert f"DF at offset {mixed.index(0xDF)}" in remark


def test_a_byte_that_is_not_in_a_multi_byte_encoding_spoils_nothing_around_it() -> None:
    def check(case: tuple[str, str]) -> None:
        name, text = case
        content = declared(name).format(f"{text}|@|{text}").encode(name).replace(b"@", b"\xff")
        read = parse(content)
        assert (read.modules[0].value, read.repairs) == (f"{text}|ÿ|{text}", ("encoding",))
        assert name in read.remarks[0]

    texts = [("EUC-JP", "日本語"), ("GBK", "中文"), ("EUC-KR", "한국"), ("Big5", "中文")]
    assert failures(check, texts) == {}


def test_what_is_not_in_the_encoding_it_declares_but_utf_8_is_utf_8() -> None:
    read = parse(declared("EUC-KR").format("café 한국").encode())
    assert (read.modules[0].value, read.repairs) == ("café 한국", ("encoding",))


def test_the_five_bytes_that_windows_1252_lacks_are_c1_characters() -> None:
    content = TEXT.encode().replace(b"{}", b"\x81\x8d\x8f\x90\x9d\x80")
    assert value(content) == "\x81\x8d\x8f\x90\x9d€"


def test_an_unknown_encoding_is_utf_8_and_is_named() -> None:
    def check(name: str) -> None:
        for codec in ("utf-8", "cp1252"):
            read = parse(declared(name).format("né").encode(codec))
            assert (read.modules[0].value, read.repairs) == ("né", ("encoding",))
            assert f"encoding {name!r} is not" in read.remarks[0]

    names = ["x-klingon", "zip", "UTF-16", "utf-16le", "ucs-2", "UTF-32", "IBM-037", "viscii"]
    assert failures(check, names) == {}


def test_a_rejection_names_the_encoding_that_is_not_known() -> None:
    with pytest.raises(PacketError, match=r"line 2, column .*; its encoding 'x-klingon' is"):
        parse(declared("x-klingon").format("&").encode())


def test_a_name_that_xml_does_not_allow_is_understood() -> None:
    def check(case: tuple[str, str]) -> None:
        name, codec = case
        read = parse(declared(name).format("né").encode(codec))
        assert (read.modules[0].value, read.repairs) == ("né", ("encoding",))

    names = ["646", "8859_1", "ISO_8859-1:1987", "ISO-8859-15@euro", "latin 1", "1252"]
    cases = [*((name, "latin-1") for name in names), ("utf 8", "utf-8"), ("", "utf-8")]
    assert failures(check, cases) == {}


def test_python_codecs_that_are_no_character_sets_are_never_used() -> None:
    names = (
        "rot13 rot_13 base64 base_64 base64_codec zlib zip bz2 hex hex_codec uu quopri idna "
        "punycode unicode_escape raw_unicode_escape utf-7 unicode-1-1-utf-7 mbcs oem undefined "
        "charmap hz palmos cp037 IBM500 cp875 cp1140 utf-16 utf-32 utf-16-be"
    )
    assert [name for name in names.split() if codec_for(name)] == []


def test_markup_is_ascii_in_every_encoding_that_is_used() -> None:
    markup = "<?xml version='1.0' encoding=\"a\"?>&#x2F;<![CDATA[-_:.;/]]>\t\r\n" + "".join(
        map(chr, (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B)))
    )
    wrong = {c: markup.encode().decode(c) for c in CODECS if markup.encode().decode(c) != markup}
    assert wrong == {}


def test_encodings_are_known_by_all_the_names_that_people_use() -> None:
    names = {
        "utf_8": "utf8 utf-8-bom UTF_8 utf8mb4 cp65001 unicode-1-1-utf-8 us-ascii 646 ISO646-US "
        "ANSI_X3.4-1968 x-utf-8 C.UTF-8 de_DE.utf8@euro",
        "latin_1": "latin1 ISO8859-1 iso_8859-1:1987 iso-ir-100 csISOLatin1 l1 cp819 IBM819 8859_1",
        "iso8859_7": "ISO-8859-7 greek elot_928 ecma-118 sun_eu_greek windows-28597",
        "iso8859_8": "ISO-8859-8-I ISO-8859-8-E iso_8859-8:1988 hebrew visual logical",
        "iso8859_15": "ISO-8859-15 latin9 latin-9 l9 IBM-923 ISO8859-15@euro",
        "hp_roman8": "roman8 hp-roman8 r8 csHPRoman8 IBM-1051",
        "cp437": "cp437 IBM437 IBM-437 437 csPC8CodePage437 DOS-437",
        "cp850": "IBM-850 ibm850 Cp850 850 cspc850multilingual ibm-850_P100-1995",
        "cp858": "IBM00858 CP00858 cp858 ibm-858",
        "cp1252": "windows-1252 x-cp1252 cp1252 win1252 ms1252 ansi-1252 German_Germany.1252 ANSI",
        "cp874": "windows-874 cp874 MS874 x-windows-874 x-IBM874 tis-620 ISO-8859-11 dos-874",
        "cp932": "windows-31j x-sjis SJIS shift_jis Shift-JIS MS_Kanji csShiftJIS cp932 MS932 "
        "windows-932 IBM-943 IBM-943C PCK ja_JP.PCK x-mac-japanese",
        "euc_jp": "EUC-JP x-euc-jp eucJP ujis IBM-eucJP IBM-33722",
        "euc_jis_2004": "eucJP-ms eucJP-win x-eucJP-Open",
        "cp949": "EUC-KR ks_c_5601-1987 KSC5601 5601 windows-949 ms949 uhc IBM-eucKR ko.EUC",
        "gb18030": "gb2312 GB_2312-80 gbk x-gbk gb18030 cp936 MS936 EUC-CN hp15CN IBM-1386",
        "cp950": "Big5 big5-eten cn-big5 x-x-big5 csBig5 cp950 MS950 x-windows-950",
        "big5hkscs": "Big5-HKSCS big5hkscs x-MS950-HKSCS cp951",
        "koi8_r": "KOI8-R cskoi8r cp20866",
        "koi8_u": "KOI8-U koi8-ru cp21866",
        "mac_roman": "macintosh x-mac-roman MacRoman mac windows-10000",
        "mac_cyrillic": "x-mac-cyrillic x-mac-ukrainian MacCyrillic",
        "mac_latin2": "x-mac-ce MacCentralEurope",
        "iso2022_jp_ext": "ISO-2022-JP csISO2022JP x-windows-iso2022jp",
    }
    found = {codec: {n: codec_for(n) for n in some.split()} for codec, some in names.items()}
    wrong = {n: codec for codec in found for n, is_ in found[codec].items() if is_ != codec}
    assert wrong == {}


def test_a_byte_that_its_encoding_lacks_is_mended() -> None:
    content = declared("windows-1252").encode("cp1252").replace(b"{}", b"\x81\xe9")
    assert (value(content), parse(content).repairs) == ("\x81é", ("encoding",))


def test_a_character_cut_at_the_end_is_left_out() -> None:
    assert charset.decode("ab€".encode()[:-1]) == ("ab", "")
    assert charset.decode("ab🎉".encode("utf-16")[:-1]) == ("ab", "")


def test_an_escape_sequence_at_the_end_that_is_none_is_malformed() -> None:
    for name in ("ISO-2022-JP", "ISO-2022-KR"):
        content = declared(name).partition("<module>")[0] + "\x1b$</agent_data>"
        with pytest.raises(PacketError, match=r"U\+001B at character"):
            parse(content.encode())


def test_latin_1_keeps_all_256_characters_but_those_xml_forbids() -> None:
    text = "".join(map(chr, range(0x80, 0x100)))
    assert value(declared("latin1").format(text).encode("latin-1")) == text


def test_megabytes_of_bad_bytes_are_read() -> None:
    for name in ("UTF-8", "EUC-JP", "x-klingon", "windows-1255", "ISO-2022-KR"):
        content = declared(name).encode().replace(b"{}", b"\xff\x81 " * 300_000)
        text = value(content)
        assert text is not None
        assert (text[:3], len(text)) == ("ÿ\x81 ", 900_000), name
