"""Files that no server takes: what the page of rejected packets has to show; pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo

from dataserver.demo.model import Due, File
from dataserver.demo.noise import DAY, HOUR
from dataserver.times import local_text

_HEAD = "<?xml version='1.0' encoding='UTF-8'?>\n<agent_data"
#: A server waits a minute for the rest of a cut upload; this one stalled before that.
_STALLED = 120


def odd_files(end: int, zone: tzinfo) -> list[Due]:
    """Some in the days before ``end`` (epoch seconds), in order of time; each says what is odd."""
    found = sorted(_odd(end, zone), key=lambda due: due.time)
    # Told with its own time, as a running server does.
    return [due._replace(tells=True) for due in found]


def _odd(end: int, zone: tzinfo) -> Iterator[Due]:
    for back in (3 * DAY + 5 * HOUR, 27 * HOUR, 2 * HOUR):
        # A bare ampersand: the mistake that home-made agents make.
        yield _due("plc-gateway", end - back, zone, "<data>pump & valve</data>")
    cut = _due("branch-north", end - 28 * HOUR, zone, "<data>-74</data>")
    assert cut.file is not None
    half = cut.file.content[: len(cut.file.content) // 2]
    yield cut._replace(file=cut.file._replace(content=half, modified=cut.time - _STALLED))
    yield _due("", end - 5 * DAY, zone, "<data>1</data>")
    # A clock that is three days ahead, and one that lost its battery.
    yield _due("desk-31", end - 9 * HOUR, zone, "<data>1</data>", ahead=3 * DAY)
    yield _due("web1", end - 4 * HOUR, zone, "<data>1</data>", ahead=-12 * DAY)


def _due(agent: str, time: int, zone: tzinfo, data: str, *, ahead: int = 0) -> Due:
    stamp = local_text(time + ahead, zone).replace("-", "/")
    name = f" agent_name='{agent}'" if agent else ""
    text = (
        f"{_HEAD}{name} interval='300' timestamp='{stamp}'>\n"
        f"<module>\n<name>Status</name>\n<type>generic_data</type>\n{data}\n</module>\n"
        "</agent_data>\n"
    )
    # Beside the agent's regular packet of that second, if there is one.
    return Due(time, File(f"{agent or 'unnamed'}-{time}.{time}.data", text.encode(), time), False)
