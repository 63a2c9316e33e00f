"""What holds for every text that an agent may write for a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from dataserver.model import Packet
from dataserver.rules.times import packet_time, sample_time

ZONES = st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Pacific/Apia")])
#: Times of agents that are not much too wrong.
MOMENTS = st.integers(31_536_000_000_000, 4_102_444_800_000_000).map(
    lambda micro: datetime.fromtimestamp(micro / 1e6, UTC).replace(tzinfo=None)
)
#: Texts that are times, nearly, or not at all.
TEXTS = st.one_of(
    st.text(),
    st.text("0123456789-/:.,+TZ ", max_size=70),
    MOMENTS.map(str),
    st.from_regex(r"[0-9]{4}[-/][0-9]{1,6}[-/][0-9]{1,6}[T ]+[0-9]+:[0-9]+:[0-9]+.{0,9}"),
)
NOW = 1_767_225_600


@given(TEXTS, st.none() | TEXTS, ZONES)
def test_any_text_is_a_time_or_none(text: str, offset: str | None, zone: ZoneInfo) -> None:
    packet = Packet("a", b"", timestamp=text, timezone_offset=offset)
    for time in (
        packet_time(packet, zone=zone, number=NOW, modified=NOW),
        sample_time(text, packet_time=NOW, offset=offset, zone=zone),
    ):
        assert time is None or time >= 0


@given(MOMENTS, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), ZONES)
def test_whatever_python_writes_with_an_offset_is_read_as_that_moment(
    moment: datetime, offset: timedelta, zone: ZoneInfo
) -> None:
    own = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    written = moment.replace(tzinfo=own)
    time = sample_time(written.isoformat(), packet_time=NOW, offset="5", zone=zone)
    assert time == written.timestamp() // 1


@given(MOMENTS)
def test_whatever_python_writes_without_an_offset_is_local(moment: datetime) -> None:
    for text in (str(moment), moment.isoformat(), f"{moment:%Y/%m/%d %H:%M:%S}"):
        time = sample_time(text, packet_time=NOW, offset=None, zone=UTC)
        assert time == moment.replace(tzinfo=UTC).timestamp() // 1
