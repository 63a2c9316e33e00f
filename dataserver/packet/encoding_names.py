"""Names of encodings, as used by IANA, WHATWG, Windows, IBM, Java, Perl, Mac and old Unix.

Only the letters and digits of a name are compared, so ``ISO_8859-1:1987`` and ``iso88591`` are
the same.  If a name also stands for Windows' extension of an encoding (``gb2312``, ``shift_jis``,
``ks_c_5601-1987``), the codec is that of Windows, which includes all characters of the other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from encodings.aliases import aliases
from functools import lru_cache
from typing import Final

UTF_8: Final = "utf_8"

#: The codecs of all names.  In each, the characters of XML's markup are the bytes of ASCII, since
#: the declaration was read as ASCII: no EBCDIC, no UTF-16.  Python's codecs that are not character
#: sets (rot13, zlib, idna, unicode_escape) are not included either.
CODECS: Final = frozenset(
    {UTF_8, "latin_1", "hp_roman8", "kz1048", "ptcp154", "koi8_r", "koi8_t", "koi8_u"}
    | {f"iso8859_{part}" for part in (*range(2, 11), *range(13, 17))}
    | {f"cp{page}" for page in range(1250, 1259)}
    | {f"cp{page}" for page in (437, 720, 737, 775, 850, 852, 855, 856, 857, 858)}
    | {f"cp{page}" for page in (*range(860, 867), 869, 874, 932, 949, 950, 1006, 1125)}
    | {"mac_arabic", "mac_croatian", "mac_cyrillic", "mac_farsi", "mac_greek", "mac_iceland"}
    | {"mac_latin2", "mac_roman", "mac_romanian", "mac_turkish"}
    | {"big5hkscs", "euc_jis_2004", "euc_jp", "gb18030", "johab"}
    | {"iso2022_jp_ext", "iso2022_kr"}
)

#: Codecs of Python that are replaced by another one with more characters.
_WIDER: Final = {
    "ascii": UTF_8,
    "big5": "cp950",
    "euc_jisx0213": "euc_jis_2004",
    "euc_kr": "cp949",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "iso2022_jp": "iso2022_jp_ext",
    "iso2022_jp_1": "iso2022_jp_ext",
    "iso8859_11": "cp874",
    "shift_jis": "cp932",
    "shift_jis_2004": "cp932",
    "shift_jisx0213": "cp932",
    "tis_620": "cp874",
}

#: Names unknown to Python, by codec, normalized by :func:`_normalized`.
_NAMES: Final = {
    UTF_8: "ansix341986 ascii7 ascii7bit 7bit csascii iso646 iso646irv iso646irv1991 xia5 "
    "cesu8 csutf8 xutf8 unicode11utf8 unicode20utf8 xunicode20utf8",
    "latin_1": "iso88591windows30latin1 iso88591windows31latin1 iso88591latin1",
    "iso8859_2": "iso88592windowslatin2",
    "iso8859_6": "asmo708 xasmo708",
    "iso8859_7": "elot928 suneugreek greek8",
    "iso8859_8": "visual logical",
    "iso8859_9": "iso88599windowslatin5 turkish8",
    "iso8859_15": "latin0 l0",
    "cp1252": "ansi windows",
    "cp437": "cspc8codepage437",
    "cp850": "cspc850multilingual",
    "cp852": "cspcp852",
    "cp862": "cspc862latinhebrew",
    "cp858": "cp850euro pcmultilingual850euro cspcmultilingual850euro",
    "cp874": "thai thai8 isoir166 tis6202533",
    "cp932": "windows31j cswindows31j mskanji xsjis sjisopen sjiswin sjisms pck xmacjapanese",
    "cp949": "5601 ksc5601 ksx1001 uhc koeuc xmackorean",
    "cp950": "bigfive bigfiveeten big5eten big5ms cnbig5 xxbig5 xmacchinesetrad",
    "big5hkscs": "big5hk ms950hkscs xms950hkscs xmswin950hkscs",
    "gb18030": "chinese csgb231280 csgbk csgb18030 euccn gb231280 hp15cn xgbk xeuccn "
    "xmacchinesesimp gb180302000 gb180302005 gb180302022",
    "euc_jp": "ujis xeucjp cseucpkdfmtjapanese",
    "euc_jis_2004": "eucjpms eucjpmswin eucjpwin eucjpopen xeucjpopen",
    "iso2022_jp_ext": "xwindowsiso2022jp",
    "hp_roman8": "roman8 r8 hproman8 cshproman8",
    "koi8_r": "koi koi8",
    "koi8_u": "koi8ru",
    "mac_arabic": "xmacarabic",
    "mac_croatian": "xmaccroatian",
    "mac_cyrillic": "xmaccyrillic xmacukrainian xmacukraine macukrainian macukraine",
    "mac_farsi": "xmacfarsi",
    "mac_greek": "xmacgreek",
    "mac_iceland": "xmaciceland xmacicelandic macicelandic",
    "mac_latin2": "xmacce xmaccentraleurope xmaccentraleurroman macce",
    "mac_roman": "mac csmacintosh xmacroman",
    "mac_romanian": "xmacromania xmacromanian macromania",
    "mac_turkish": "xmacturkish",
}

#: Numbers of code pages of Windows and IBM that are not part of their codec's name.
_PAGES: Final = {
    UTF_8: "367 1208 20127 65001",
    "latin_1": "819 28591",
    "iso8859_2": "912 28592",
    "iso8859_3": "913 28593",
    "iso8859_4": "914 28594",
    "iso8859_5": "915 28595",
    "iso8859_6": "708 1089 28596",
    "iso8859_7": "813 28597",
    "iso8859_8": "916 28598 38598",
    "iso8859_9": "920 28599",
    "iso8859_10": "919 28600",
    "iso8859_13": "921 28603",
    "iso8859_15": "923 28605",
    "cp1250": "5346",
    "cp1251": "5347",
    "cp1252": "5348",
    "cp1253": "5349",
    "cp1254": "5350",
    "cp1255": "5351",
    "cp1256": "5352",
    "cp1257": "5353",
    "cp1258": "5354",
    "cp866": "808",
    "cp874": "1162 9066",
    "cp932": "942 943 10001",
    "cp949": "970 1363 10003 20949 51949",
    "cp950": "1370 10002",
    "big5hkscs": "951 1375",
    "gb18030": "936 1383 1386 1392 5488 10008 20936 51936 54936",
    "euc_jp": "954 5050 20932 33722",
    "euc_jis_2004": "51932",
    "johab": "1361",
    "iso2022_jp_ext": "50220 50221 50222",
    "iso2022_kr": "50225",
    "hp_roman8": "1051",
    "koi8_r": "878 20866",
    "koi8_u": "1168 21866",
    "mac_roman": "1275 10000",
    "mac_greek": "1280 10006",
    "mac_turkish": "1281 10081",
    "mac_latin2": "1282 10029",
    "mac_cyrillic": "1283 10007 10017",
    "mac_croatian": "1284 10082",
    "mac_romanian": "1285 10010",
    "mac_iceland": "1286 10079",
    "mac_arabic": "10004",
}

_UTF_8: Final = re.compile(r"(?:x|cs)?utf8(?:n|mb[34]|bom|sig|c|withbom|withoutbom|nobom|strict)?")
_PAGE: Final = re.compile(
    r"(?:x|cs|pc|microsoft|java)*"
    r"(?:windows|codepage|mswin|ccsid|ansi|ibm|win|oem|dos|cp|ms|pc)*0*([1-9][0-9]{2,4})"
    r"(?:c|p[0-9]+|euro)?"
)
_ISO_8859: Final = re.compile(
    r"(?:x|cs)?(?:iso)?(?:iec)?8859(?:part)?(1[0-6]|[1-9])(?:(?:19|20)[0-9]{2})?(?:[ie]|euro)?"
)
_IBM_EUC: Final = re.compile(r"(?:x?ibm)(euc[a-z]+)")
_NOT_NAME: Final = re.compile(r"[^a-z0-9]+")
_WIDE: Final = re.compile(
    r"(?:x|cs)?(?:utf(?:16|32)|ucs[24]|iso10646ucs[24]|unicode)(?:le|be|bom)*"
)


def codec_for(name: str) -> str | None:
    """The Python codec for the encoding ``name``, one of :data:`CODECS`.

    None if it is unknown, or cannot be that of a file whose declaration is in ASCII.
    """
    key = _normalized(name)
    # The name of a locale, as in $LANG, ends with the encoding: de_DE.UTF-8, Greek_Greece.1253.
    return _codec(key) or _codec(_normalized(name.rpartition(".")[2].partition("@")[0]))


def is_wide(name: str) -> bool:
    """Whether ``name`` is that of an encoding with two or four bytes per character."""
    return _WIDE.fullmatch(_normalized(name)) is not None


def _codec(key: str) -> str | None:
    table = _table()
    if key in table:
        return table[key]
    if _UTF_8.fullmatch(key):
        return UTF_8
    if part := _ISO_8859.fullmatch(key):
        return table.get(f"iso8859{part[1]}")
    if page := _PAGE.fullmatch(key):
        return table.get(f"cp{page[1]}")
    if euc := _IBM_EUC.fullmatch(key):
        return table.get(euc[1])
    return None


def _normalized(name: str) -> str:
    return _NOT_NAME.sub("", name.lower())


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    return dict(_entries())


def _entries() -> Iterator[tuple[str, str]]:
    """Each normalized name, with its codec."""
    for codec in CODECS | _WIDER.keys():
        known = _WIDER.get(codec, codec)
        yield _normalized(codec), known
    for alias, codec in aliases.items():
        known = _WIDER.get(codec, codec)
        if known in CODECS:
            yield _normalized(alias), known
    for codec, names in _NAMES.items():
        for name in names.split():
            yield name, codec
    for codec, pages in _PAGES.items():
        for page in pages.split():
            yield f"cp{page}", codec
