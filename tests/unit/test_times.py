"""Times: what the texts in a packet mean in epoch seconds."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

from dataserver.model import Packet
from dataserver.packet.parse import parse
from dataserver.rules.times import (
    from_local_text,
    is_valid_offset,
    local_text,
    packet_time,
    sample_time,
)

BERLIN = ZoneInfo("Europe/Berlin")  # clocks: 2026-03-29 02:00 forward, 2026-10-25 03:00 back
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # half an hour, 2026-04-05 02:00 back
NEW_YEAR = 1_767_225_600  # 2026-01-01 00:00:00 UTC
DOUBLED = (1_792_888_200, 1_792_891_800)  # both 2026-10-25 02:30 in Berlin
HOUR = 3600
GOLDEN = Path(__file__).parents[1] / "golden"


def time_of(
    timestamp: str | None, *, offset: str | None = None, number: int = 0, modified: int = NEW_YEAR
) -> int | None:
    packet = Packet("a", b"", timestamp=timestamp, timezone_offset=offset)
    return packet_time(packet, zone=UTC, number=number, modified=modified)


def in_berlin(timestamp: str, *, number: int = 0, modified: int = 0) -> int | None:
    packet = Packet("a", b"", timestamp=timestamp)
    return packet_time(packet, zone=BERLIN, number=number, modified=modified)


def test_a_timestamp_is_read_with_slashes_or_dashes() -> None:
    texts = [
        *("2026/01/01 00:00:00", "2026-01-01 00:00:00", "2026-01/01 00:00:00"),
        " 2026/1/1  0:0:0\n",
    ]
    assert [text for text in texts if time_of(text) != NEW_YEAR] == []


def test_a_timestamp_is_local_to_the_zone() -> None:
    assert in_berlin("2026/01/01 01:00:00") == NEW_YEAR
    assert in_berlin("2026/07/01 02:00:00") == in_berlin("2026/07/01 01:00:00", number=1) + HOUR


def test_an_unreadable_timestamp_is_no_time() -> None:
    texts = [
        "yesterday",
        "2026/01/01",
        "2026-01-01T",
        "26/01/01 00:00:00",
        "01/12/2026 00:00:00",
        "12026/01/01 00:00:00",
        "0000-00-00 00:00:00",
        "0001/01/01 00:00:00",
        "1969/12/31 23:59:59",
        "9999/99/01 00:00:00",
        "2026/01/99999999999999999999 00:00:00",
        "2026-01-01T00:00:00+25:00",
        "2026-01-01T00",
        "20260101000000",
        "٢٠٢٦/٠١/٠١ ٠٠:٠٠:٠٠",
        "2026/01/01 00:00:00" + " " * 100,
        "1767225600",
    ]
    assert [text for text in texts if time_of(text, number=NEW_YEAR) is not None] == []


def test_a_part_that_is_too_large_is_carried_over_as_by_perl() -> None:
    # Each as POSIX::strftime("%s", ...) of Perl has it.
    times = {
        "2026/02/30 00:00:00": "2026-03-02 00:00:00",
        "2026-02-30T00:00:00": "2026-03-02 00:00:00",
        "2026/01/01 24:00:00": "2026-01-02 00:00:00",
        "2026/01/01 00:00:60": "2026-01-01 00:01:00",
        "2026/13/01 00:00:00": "2027-01-01 00:00:00",
        "2026/00/00 00:00:00": "2025-11-30 00:00:00",
        "2026/1/400 00:99:00": "2027-02-04 01:39:00",
    }
    assert {text: local_text(time_of(text) or 0, UTC) for text in times} == times


def test_a_time_that_is_carried_over_is_local_to_the_zone() -> None:
    assert in_berlin("2026/03/28 26:30:00") == in_berlin("2026/03/29 02:30:00")
    for meaning in DOUBLED:
        assert in_berlin("2026/10/24 26:30:00", modified=meaning + 20) == meaning


def test_what_stands_around_a_time_is_ignored_as_by_perl() -> None:
    texts = ["2026/01/01 00:00:00 and more", "Thu 2026-01-01   00:00:00 CET", "x2026/1/1 0:0:0x"]
    assert [text for text in texts if time_of(text) != NEW_YEAR] == []


def test_a_time_may_be_written_in_iso_8601() -> None:
    texts = [
        "2026-01-01T00:00:00",
        "2026-01-01t00:00:00",
        "2026-01-01T00:00",
        "2026-01-01 00:00",
        "2026/01/01 00:00",
        "2026-01-01T00:00:00.999",
        "2026-01-01 00:00:00,123456789",
        "20260101T000000",
        "20260101T0000",
    ]
    wrong = [text for text in texts if time_of(text, offset="1") != NEW_YEAR + HOUR]
    wrong += [text for text in texts if in_berlin(text) != NEW_YEAR - HOUR]
    wrong += [text for text in texts if sample(text, offset="1") != NEW_YEAR + HOUR]
    assert wrong == []


def test_a_time_with_an_offset_of_its_own_is_absolute() -> None:
    texts = [
        "2026-01-01T00:00:00Z",
        "2026-01-01 00:00:00z",
        "2026-01-01 00:00:00 UTC",
        "2026-01-01T00:00:00.5Z",
        "2026-01-01T00:00Z",
        "2026-01-01T01:00:00+01:00",
        "2026-01-01T01:00:00+0100",
        "2026-01-01T01:00:00+01",
        "2026-01-01 01:00:00 +0100",
        "2026-01-01T01:00:00.123456789+01:00",
        "2025-12-31T18:30:00-05:30",
        "20260101T010000+0100",
        "20260101T000000Z",
    ]
    # Neither the zone of the server nor the packet's offset counts.
    wrong = [text for text in texts if time_of(text, offset="5") != NEW_YEAR]
    wrong += [text for text in texts if in_berlin(text) != NEW_YEAR]
    wrong += [text for text in texts if sample(text, offset="5", packet=0) != NEW_YEAR]
    assert wrong == []


def hours_of(offset: str | None) -> float:
    """What a packet's offset moves its time by."""
    time = time_of("2026/01/01 00:00:00", offset=offset)
    assert time is not None
    return (time - NEW_YEAR) / HOUR


def test_the_offset_is_added_in_hours() -> None:
    hours = {"2": 2, "-3": -3, "5.5": 5.5, "5,5": 5.5, " 1 ": 1, "0": 0, "": 0, None: 0}
    assert {offset: hours_of(offset) for offset in hours} == hours


def test_an_offset_that_is_no_number_of_hours_in_a_day_is_ignored() -> None:
    offsets = ["x", "nan", "inf", "-inf", "25", "1e300", "9" * 100]
    assert [offset for offset in offsets if hours_of(offset) != 0] == []
    assert [offset for offset in offsets if is_valid_offset(offset)] == []


def test_the_golden_packet_with_an_offset_has_it_once() -> None:
    (file,) = (GOLDEN / "real" / "in" / "001").glob("08f1*.data")
    number = int(file.stem.rsplit(".", 1)[1])
    packet = parse(file.read_bytes())
    seconds = packet_time(packet, zone=UTC, number=number, modified=number)
    assert local_text(seconds or 0, UTC) == "2026-11-22 09:24:54"


def test_without_timestamp_the_number_is_the_time_if_it_is_a_plausible_epoch() -> None:
    number = NEW_YEAR - 5
    for timestamp in (None, "", "  ", "AUTO", "auto", " Auto "):
        assert time_of(timestamp, number=number, offset="2") == number, timestamp


def test_without_timestamp_and_plausible_number_the_modification_time_is_it() -> None:
    numbers = [0, 1000, 978_307_199, NEW_YEAR + 86_401, 4_102_444_801, 10**30]
    assert [number for number in numbers if time_of(None, number=number) != NEW_YEAR] == []


def test_a_number_a_day_ahead_of_the_modification_time_is_still_a_time() -> None:
    assert time_of(None, number=NEW_YEAR + 86_400) == NEW_YEAR + 86_400


def test_a_time_of_the_doubled_hour_is_the_one_nearer_to_the_number() -> None:
    text = "2026/10/25 02:30:00"
    for meaning in DOUBLED:
        assert in_berlin(text, number=meaning + 20, modified=DOUBLED[1] + 9000) == meaning


def test_a_time_of_the_doubled_hour_is_the_one_nearer_to_the_modification_time() -> None:
    text = "2026/10/25 02:30:00"
    for meaning in DOUBLED:
        assert in_berlin(text, number=17, modified=meaning - 20) == meaning


def test_the_offset_counts_in_the_choice_between_two_meanings() -> None:
    packet = Packet("a", b"", timestamp="2026/10/25 02:30:00", timezone_offset="-1")
    near = DOUBLED[1] - HOUR
    assert packet_time(packet, zone=BERLIN, number=near, modified=near) == near


def test_half_an_hour_is_doubled_where_clocks_change_by_half_an_hour() -> None:
    early, late = (
        packet_time(
            Packet("a", b"", timestamp="2026/04/05 01:45:00"),
            zone=LORD_HOWE,
            number=0,
            modified=modified,
        )
        for modified in (0, NEW_YEAR * 2)
    )
    assert late is not None
    assert early is not None
    assert late - early == HOUR // 2


def test_a_time_of_the_skipped_hour_is_moved_forward() -> None:
    for modified in (0, 2 * NEW_YEAR):
        skipped = in_berlin("2026/03/29 02:30:00", modified=modified)
        assert skipped == in_berlin("2026/03/29 03:30:00")


# --- values with a time of their own ----------------------------------------------------


def sample(
    text: str | None, packet: int | None = NEW_YEAR, offset: str | None = None
) -> int | None:
    return sample_time(text, packet_time=packet, offset=offset, zone=UTC)


def test_a_value_without_time_has_the_packets() -> None:
    for text in (None, "", " ", "AUTO", "auto"):
        assert sample(text) == NEW_YEAR, text
        assert sample(text, packet=None) is None, text


def test_a_values_local_time_gets_the_offset_once() -> None:
    assert sample("2026/01/01 00:01:00", offset="2") == NEW_YEAR + 60 + 2 * HOUR


def test_a_values_time_counts_also_where_the_packets_is_unreadable() -> None:
    assert sample("2026-01-01 00:01:00", packet=None) == NEW_YEAR + 60


def test_epoch_seconds_are_absolute() -> None:
    for text in ("1767225600", " 1767225600\n", "1767225600.75"):
        assert sample(text, offset="2", packet=0) == NEW_YEAR, text


def test_an_unreadable_time_of_a_value_is_no_time() -> None:
    texts = ["5", "978307199", "4102444801", "20260101000000", "-1", "x"]
    assert [text for text in texts if sample(text) is not None] == []


def test_a_values_time_in_the_doubled_hour_is_the_one_nearer_to_the_packets() -> None:
    for meaning in DOUBLED:
        found = sample_time(
            "2026/10/25 02:30:00", packet_time=meaning + 600, offset=None, zone=BERLIN
        )
        assert found == meaning


# --- the database's date columns --------------------------------------------------------


def test_local_text_is_the_zones_date_and_time() -> None:
    assert local_text(NEW_YEAR, UTC) == "2026-01-01 00:00:00"
    assert local_text(NEW_YEAR + 5, BERLIN) == "2026-01-01 01:00:05"
    assert local_text(0, UTC) == "1970-01-01 00:00:00"


def test_local_text_is_read_back_also_in_the_doubled_hour() -> None:
    for epoch in range(DOUBLED[0] - 2 * HOUR, DOUBLED[1] + 2 * HOUR, 97):
        assert from_local_text(local_text(epoch, BERLIN), BERLIN, epoch + 100) == epoch


def test_without_hint_the_doubled_hours_earlier_meaning_is_taken() -> None:
    assert from_local_text("2026-10-25 02:30:00", BERLIN) == DOUBLED[0]


def test_a_date_before_1970_is_read_back_as_negative() -> None:
    assert from_local_text("1970-01-01 00:00:00", BERLIN) == -HOUR


def test_a_text_that_is_no_date_stands_for_never() -> None:
    for text in ("0000-00-00 00:00:00", "", "never", "2026-02-30 00:00:00", "2026-01-00 00:00:00"):
        assert from_local_text(text, UTC, NEW_YEAR) == 0, text
