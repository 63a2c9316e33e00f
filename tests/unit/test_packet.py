"""Packets: what is read from them, and what is refused and why."""

from __future__ import annotations

import hashlib
import threading
from itertools import product
from pathlib import Path

import pytest

from dataserver.errors import IncompletePacket, PacketError, Reason
from dataserver.model import InventoryModule, Log, Module, Sample, Section
from dataserver.packet.parse import MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS, ends_complete, parse
from tests.support.failures import failures

GOLDEN = Path(__file__).parents[1] / "golden"
BEGIN = b"<agent_data agent_name='a'>"
END = b"</agent_data>"


def packet(body: str | bytes = b"") -> bytes:
    """A packet of agent "a" around ``body``."""
    return BEGIN + (body.encode() if isinstance(body, str) else body) + END


def golden(case: str, step: str, start: str) -> bytes:
    (file,) = (GOLDEN / case / "in" / step).glob(f"{start}*.data")
    return file.read_bytes()


def refusal(content: bytes) -> PacketError:
    with pytest.raises(PacketError) as caught:
        parse(content)
    return caught.value


def only_module(body: str) -> Module:
    (module,) = parse(packet(f"<module>{body}</module>")).modules
    return module


# --- what is read -----------------------------------------------------------------------


def test_every_golden_packet_is_read_without_repair() -> None:
    files = sorted(GOLDEN.glob("*/in/*/*.data"))
    assert len(files) > 100
    for file in files:
        assert parse(file.read_bytes()).repairs == (), file


def test_the_roots_attributes_are_fields_of_the_packet() -> None:
    read = parse(golden("agents", "000", "a1."))
    assert (read.agent_name, read.alias, read.group) == ("a1", "Alias One & co", "Servers")
    assert (read.description, read.interval) == ("first <agent>", "300")
    assert read.url_address == "http://x/?a=1&b=2"
    assert read.address == "10.1.1.1,10.1.1.2, 10.1.1.3"
    assert read.parent_agent_name is None


def test_an_unknown_attribute_of_the_root_is_ignored_also_when_named_like_a_field() -> None:
    read = parse(b"<agent_data agent_name='a' modules='x' digest='y' alias='z'></agent_data>")
    assert (read.modules, read.alias, len(read.digest)) == ((), None, 16)


def test_a_module_has_its_name_type_value_and_every_other_tag() -> None:
    assert only_module(
        "<name><![CDATA[a b]]></name><type>generic_proc</type><data>1</data><unit/>"
        "<min_critical>5</min_critical><my_own>x</my_own>"
    ) == Module("a b", "generic_proc", "1", (), {"unit": "", "min_critical": "5", "my_own": "x"})


def test_a_module_without_name_or_type_gets_none_and_the_default() -> None:
    assert only_module("<type/>") == Module("", "generic_data", None, (), {})


def test_text_is_kept_as_it_came_with_its_blanks() -> None:
    (module,) = parse(golden("encodings", "000", "enc-refs")).modules
    assert (module.name, module.type, module.value) == ("refs é <x>", " generic_data ", "\n 5 \n")


def test_comments_and_instructions_inside_of_a_text_join_what_is_around_them() -> None:
    assert only_module("<data>a<!-- b -->c<?d e?><![CDATA[<f>]]>g</data>").value == "ac<f>g"


def test_a_comment_that_is_text_stays() -> None:
    (module,) = parse(golden("encodings", "000", "enc-none")).modules
    assert module.value == "abc&amp;<!-- c -->d"


def test_the_first_of_a_repeated_tag_counts() -> None:
    module = only_module("<name>1</name><name>2</name><data>3</data><data>4</data><u>5</u><u>6</u>")
    assert (module.name, module.value, module.tags) == ("1", "3", {"u": "5"})


def test_the_same_module_twice_is_read_twice_in_order() -> None:
    modules = parse(golden("names", "001", "names")).modules
    assert [m.value for m in modules if m.name == "dup"] == ["0", "2"]


def test_a_datalist_gives_samples_with_their_own_times_in_order() -> None:
    module = parse(golden("datalist", "000", "dl")).modules[0]
    assert module.value is None
    assert len(module.samples) == 12
    assert module.samples[:2] == (
        Sample("2", "2026/01/01 00:00:00"),
        Sample("1", "2026/01/01 00:01:00"),
    )


def test_a_datalist_replaces_data_and_its_entries_without_value_are_left_out() -> None:
    module = only_module(
        "<data>9</data><datalist><data>8</data><data><value/></data></datalist>"
        "<datalist><data><timestamp>t</timestamp><value>7</value></data></datalist>"
    )
    assert (module.value, module.samples) == (None, (Sample("", None), Sample("7", "t")))


def test_a_log_plugins_datalist_has_no_times() -> None:
    samples = parse(golden("real", "001", "1c98")).modules[0].samples
    assert [sample.time for sample in samples] == [None] * 4
    assert samples[0].value == "Nov 22 07:22:00 host app[22]: error late & <x> n=22\n"


def test_custom_fields_and_inventory_are_read() -> None:
    read = parse(golden("sections", "000", "sec"))
    assert read.custom_fields == (("Serial Number", "SN-7"), ("Nope", "x"))
    rows = tuple(f"pkg{n};1.0;desc {n}" for n in range(4))
    assert read.inventory == (InventoryModule("Software", rows),)
    assert (read.latitude, read.position_description) == ("40.41", "Madrid, somewhere")
    assert read.modules[1].tags == {"module_parent": "parent"}


def test_events_are_read() -> None:
    assert parse(packet("<events><event>e30=</event><event/></events>")).events == ("e30=", "")


def test_logs_are_kept_and_counted_as_not_stored() -> None:
    read = parse(golden("real", "001", "1c98"))
    assert [(log.source, log.type, log.encoding) for log in read.logs] == [
        ("SyslogRaw", "", "base64"),
        ("LoggerLog", "log", "base64"),
    ]
    assert isinstance(read.logs[0], Log)
    assert read.logs[0].data.startswith("Tm92")
    assert read.unstored == (("log_module", 2),)


def test_sections_without_a_home_are_kept_as_xml_and_counted() -> None:
    read = parse(packet("<cmd_report><r>1 &lt; 2</r></cmd_report> <traps/>\n<traps>é</traps>"))
    assert read.sections == (
        Section("cmd_report", "<cmd_report><r>1 &lt; 2</r></cmd_report>"),
        Section("traps", "<traps/>"),
        Section("traps", "<traps>é</traps>"),
    )
    assert read.unstored == (("cmd_report", 1), ("traps", 2))


def test_a_packet_of_a_1_x_agent_is_read() -> None:
    read = parse(
        b"<agent_data os_name='Solaris' os_version='5.8' interval='300' version='1.3'"
        b" timestamp='2008/01/01 10:00:00' agent_name='old'>\n<module>\n<name>cpu</name>\n"
        b"<type>generic_data</type>\n<data>5</data>\n<max>100</max>\n<min>0</min>\n"
        b"<description>Usage in %</description>\n</module>\n</agent_data>\n"
    )
    assert (read.agent_name, read.version) == ("old", "1.3")
    assert read.modules[0].tags == {"max": "100", "min": "0", "description": "Usage in %"}


def test_a_servers_own_packet_needs_no_agent_name() -> None:
    read = parse(b"<agent_data server_name='sat' server_type='13'/>")
    assert (read.agent_name, read.server_name, read.server_type) == ("", "sat", "13")


def test_that_a_name_loses_its_script_tags_is_told() -> None:
    read = parse(b"<agent_data agent_name='a&lt;/script >b &lt; c'></agent_data>")
    assert read.remarks == (
        "agent 'a</script >b < c' is stored as 'ab < c', without <script> tags and line ends",
    )
    assert parse(b"<agent_data agent_name='a &lt; b'></agent_data>").remarks == ()


def test_the_digest_is_that_of_the_bytes_whatever_white_space_ends_them() -> None:
    content = packet("<module/>")
    expected = hashlib.blake2b(content, digest_size=16).digest()
    assert {parse(content + end).digest for end in (b"", b"\n", b" \r\n\t\n")} == {expected}
    assert parse(packet("<module /> ")).digest != expected


def test_threads_parse_at_the_same_time() -> None:
    content = golden("real", "000", "d451")
    expected = parse(content)
    results: list[bool] = []

    def work() -> None:
        results.append(all(parse(content) == expected for _ in range(50)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


# --- what is refused --------------------------------------------------------------------


def test_what_can_never_be_a_packet_is_malformed_at_once() -> None:
    contents = [
        b"\x89PNG\r\n\x1a\n\0\0",
        b"hello",
        b"<html></html>",
        b"<agent_database></agent_database>",
        b"<agent_data xmlns='u' agent_name='a'></agent_data>",
        b" <?xml version='1.0'?>" + packet(),
        packet() + b"more",
        packet() + packet(),
        packet() + b"<!-- c -->",
        packet() + b"\xc3",
        packet(b"<module><name>a & b</name></module>"),
        packet(b"<module><name>a < b</name></module>"),
        packet(b"<module><name>&nbsp;</name></module>"),
        packet(b"<module a='x></module>"),
        packet(b"<module a='x's'></module>"),
        packet(b"<module>"),
        packet(b"</module>"),
        packet(b"<a:b/>"),
        packet(b"\0"),
        packet(b"<module><data>\x1b[0m</data></module>"),
        packet(b"&#1;"),
        packet("\ufffe"),
        "<agent_data agent_name='\ud800'/>".encode("utf-16", "surrogatepass"),
    ]
    assert failures(is_malformed, contents) == {}


def is_malformed(content: bytes) -> None:
    error = refusal(content)
    assert error.reason is Reason.MALFORMED
    assert not isinstance(error, IncompletePacket)


def test_a_packet_without_agent_name_is_refused_as_that() -> None:
    contents = [
        b"<agent_data></agent_data>",
        b"<agent_data/>",
        b"<agent_data agent_name=''></agent_data>",
        b"<agent_data agent_name='&lt;script src=x>&lt;/SCRIPT>' server_name=''></agent_data>",
    ]
    assert [refusal(content).reason for content in contents] == [Reason.NO_AGENT] * len(contents)


def test_the_closing_tag_as_text_at_the_cut_is_incomplete() -> None:
    for start, end in (("<![CDATA[", "]]>"), ("<!-- ", "-->"), ("<?pi ", "?>")):
        content = packet(f"<module><data>{start}")
        assert ends_complete(content), start
        assert isinstance(refusal(content), IncompletePacket), start
        rest = f"{end}</data></module>".encode() + END
        assert parse(content + rest).agent_name == "a"


def test_a_cut_packet_is_incomplete_and_rejected_as_that() -> None:
    error = refusal(packet("<module>")[:-3])
    assert isinstance(error, IncompletePacket)
    assert error.reason is Reason.INCOMPLETE


def test_an_empty_file_may_still_grow_and_is_malformed_if_it_does_not() -> None:
    for content in (b"", b"\0" * 4096):
        error = refusal(content)
        assert isinstance(error, IncompletePacket)
        assert error.reason is Reason.MALFORMED


def test_a_file_that_got_its_size_before_its_content_is_incomplete() -> None:
    content = packet("<module><name>n</name></module>") + b"\n"
    for written in range(len(content)):
        assert isinstance(
            refusal(content[:written] + bytes(len(content) + 1 - written)), IncompletePacket
        )


def test_a_document_type_is_malformed_in_any_encoding() -> None:
    encodings = ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]
    prologs = [
        '<!DOCTYPE a [<!ENTITY b "x"><!ENTITY c "&b;&b;">]>',
        '<?xml version="1.0"?>\n<!-- <agent_data> -->\n'
        '<!DOCTYPE agent_data [<!ENTITY e SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE agent_data SYSTEM "http://127.0.0.1:9/x.dtd">',
        "<?a?><!DOCTYPE agent_data>",
    ]

    def check(case: tuple[str, str]) -> None:
        prolog, encoding = case
        content = f"{prolog}<agent_data agent_name='a'><x>&c;&e;</x></agent_data>"
        error = refusal(content.encode(encoding))
        assert error.reason is Reason.MALFORMED
        assert "document type" in str(error)

    assert failures(check, product(prologs, encodings)) == {}


def test_a_document_type_that_is_text_is_text() -> None:
    module = only_module("<data><![CDATA[<!DOCTYPE html>]]></data>")
    assert module.value == "<!DOCTYPE html>"


def test_the_levels_are_bounded_at_the_same_depth_in_small_and_large_packets() -> None:
    deepest = MAX_DEPTH - 1
    for filler in (b"", b" " * 1_000_000):
        assert parse(packet(filler + b"<a>" * deepest + b"</a>" * deepest)).sections
        levels = deepest + 1
        error = refusal(packet(filler + b"<a>" * levels + b"</a>" * levels))
        assert error.reason is Reason.MALFORMED


def test_more_than_the_bounds_is_malformed() -> None:
    contents = [
        packet(b"<a>" * 200_000 + b"</a>" * 200_000),
        BEGIN + b"<a>" * 200_000,
        packet(b"<a " + b" ".join(b"a%d=''" % n for n in range(100_001)) + b"/>"),
        b"<agent_data agent_name='a' " + b" ".join(b"a%d=''" % n for n in range(1001)) + b"/>",
    ]
    assert failures(is_malformed, contents) == {}


def test_a_bare_quotation_mark_hides_no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def many(count: int, end: bytes) -> bytes:
        attributes = b" ".join(b'a%d=""' % n for n in range(count))
        return b"<agent_data agent_name='O'N' " + attributes + end

    assert parse(many(998, b"></agent_data>")).agent_name == "O'N"
    monkeypatch.setattr(
        "dataserver.packet.parse._read_bounded", lambda _: pytest.fail("it was parsed")
    )
    for end in (b"></agent_data>", b""):
        assert "its root has over 1000 attributes" in str(refusal(many(200_000, end)))


@pytest.mark.parametrize("bound", [1_000, pytest.param(MAX_ELEMENTS, marks=pytest.mark.long)])
def test_more_elements_than_the_bound_are_malformed(
    bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataserver.packet.parse.MAX_ELEMENTS", bound)
    # In a small packet there is no room for as many as are too many.
    filler = b" " * (5 * MAX_ATTRIBUTES)
    assert len(parse(packet(filler + b"<a/>" * (bound - 1))).sections) == bound - 1
    is_malformed(packet(filler + b"<a/>" * bound))


def test_a_text_of_twenty_megabytes_is_read_whole() -> None:
    text = "ab<c'\"" * 3_500_000
    module = only_module(f"<data><![CDATA[{text}]]></data>")
    assert module.value == text


def test_the_reason_says_what_is_wrong_and_where() -> None:
    message = str(refusal(packet(b"<module>\n<name>&nbsp;</name></module>")))
    assert "'nbsp' not defined, line 2" in message


def test_the_reason_stays_short_however_long_the_name_in_it() -> None:
    assert len(str(refusal(packet(b"<" + b"n" * 40_000 + b"></m>")))) <= 200


# --- complete or not --------------------------------------------------------------------


def test_the_roots_end_is_complete_whatever_white_space_follows() -> None:
    encodings = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]
    ends = ["</agent_data>", "</agent_data >\r\n \t", "<agent_data a='1'/>"]
    incomplete = [
        (end, encoding)
        for end, encoding in product(ends, encodings)
        if not ends_complete(f"<?xml version='1.0'?><agent_data>{end}".encode(encoding))
    ]
    assert incomplete == []


def test_anything_else_is_not_complete() -> None:
    contents = [
        b"",
        b"</agent_data",
        b"<module/>",
        b"</agent_data>\0",
        b"</agent_data>x",
        b"</agent_database>",
        "<a></agent_data>".encode("utf-16-le")[:-1],
        b"\xff\xfe\x00\xd8\x00\x00",
    ]
    assert [content for content in contents if ends_complete(content)] == []
