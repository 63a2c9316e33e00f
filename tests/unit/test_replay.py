"""The slow reference of statuses gives what the Perl data server stored, case by case."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest

from dataserver.model import Module as Carried
from dataserver.model import Packet
from dataserver.packet import parse
from dataserver.rules import entities
from dataserver.rules.times import packet_time, sample_time
from dataserver.rules.values import Bounds, Kind, bounds, limited, number, parse_number, reading
from dataserver.rules.values import type_rule as rule_of
from tests.support import golden
from tests.support.golden import Case
from tests.support.replay import (
    CRITICAL,
    NORMAL,
    NOT_INITIALISED,
    UNKNOWN,
    WARNING,
    Happened,
    Level,
    Module,
    State,
    Sweep,
    Told,
    Value,
    replay,
)

ZONE = ZoneInfo("UTC")
CASES = (
    *("flipflop", "thresholds_numeric", "thresholds_string", "walk", "async_proc", "module_tags"),
    *("counters", "number_formats", "datalist", "day_rule", "real"),
)
HOUR = 3600

#: Their values are ``nan`` or ``inf`` sometimes, which the Perl server takes and this one not.
NOT_NUMBERS = {"n0", "n3", "n7", "n20", "n21", "n24"}

Key = tuple[str, str]
Cells = dict[str, str]


# -- the golden rows ---------------------------------------------------------------


def rows(case: Case, table: str) -> list[Cells]:
    """All columns of a table's expected rows, as text."""
    text = (case.folder / "expected" / f"{table}.tsv").read_text(encoding="utf-8")
    head, *lines = text.removesuffix("\n").split("\n")
    names = head.split("\t")
    return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]


def module(cells: Cells, packet_type: str) -> Module:
    """A module's configuration as it is in the database; its type as the packets say."""

    def level(name: str) -> Level:
        text = cells[f"str_{name}"]
        return Level(
            min=float(cells[f"min_{name}"]),
            max=float(cells[f"max_{name}"]),
            text="" if text == "NULL" else text.replace("\\\\", "\\"),
            inverse=cells[f"{name}_inverse"] == "1",
        )

    def whole(name: str) -> int:
        return int(cells[name])

    return Module(
        type=packet_type,
        critical=level("critical"),
        warning=level("warning"),
        ff_type=whole("ff_type"),
        min_ff_event=whole("min_ff_event"),
        each_ff=cells["each_ff"] == "1",
        min_ff_event_normal=whole("min_ff_event_normal"),
        min_ff_event_warning=whole("min_ff_event_warning"),
        min_ff_event_critical=whole("min_ff_event_critical"),
        ff_timeout=whole("ff_timeout"),
        module_ff_interval=whole("module_ff_interval"),
        module_interval=whole("module_interval"),
        quiet=cells["quiet"] == "1",
    )


def state_cells(state: State) -> Cells:
    """A state as the columns of ``state.tsv``."""
    cells = {
        "status": state.status,
        "known_status": state.known_status,
        "last_status": state.last_status,
        "last_known_status": state.last_known_status,
        "status_changes": state.status_changes,
        "ff_normal": state.ff_normal,
        "ff_warning": state.ff_warning,
        "ff_critical": state.ff_critical,
        "last_status_change": state.last_status_change,
        "ff_start_utimestamp": state.ff_start,
    }
    return {name: str(cell) for name, cell in cells.items()}


# -- the packets ---------------------------------------------------------------------


class Feed:
    """What the modules of a case got: accepted values in order, as the state holds them.

    Each with the type that its packet gave the module: that is what decides.
    """

    def __init__(self, case: Case) -> None:
        self.values: defaultdict[Key, list[tuple[str, Value]]] = defaultdict(list)
        self.created_as: dict[Key, str] = {}
        self._bounds = {key_of(row): bounds_of(row) for row in rows(case, "modules")}
        self._counters: dict[Key, tuple[float, int]] = {}
        self._times: defaultdict[Key, int] = defaultdict(int)
        for step in case.steps():
            for file in step:
                self._packet(parse.parse(file.read_bytes()), golden.number(file))

    def _packet(self, parsed: Packet, file_number: int) -> None:
        time = packet_time(parsed, zone=ZONE, number=file_number, modified=file_number)
        agent = entities.encode(entities.clean_name(parsed.agent_name))
        for carried in parsed.modules:
            key = agent, entities.encode(entities.clean_name(carried.name))
            if key not in self._bounds:
                continue
            type_name = carried.type or "generic_data"
            self.created_as.setdefault(key, type_name)
            for text, at in _samples(carried, parsed, time):
                kept = self._kept(key, rule_of(type_name).kind, text, at)
                if kept is not None and at is not None and at >= self._times[key]:
                    self._times[key] = at
                    value = Value(at, kept, carried.tags.get("status"))
                    self.values[key].append((type_name, value))

    def _kept(self, key: Key, kind: Kind, text: str | None, time: int | None) -> str | None:
        if not text or time is None:
            return None
        if kind is Kind.TEXT:
            return text
        if kind is Kind.NUMBER:
            plain = number(text, self._bounds[key])
            return plain and plain.text
        parsed = parse_number(text)
        if parsed is None:
            return None
        read = reading(kind, parsed, time, self._counters.get(key))
        if read.remember:
            self._counters[key] = parsed, time
        kept = None if read.amount is None else limited(read.amount, self._bounds[key])
        return kept and kept.text


def _samples(
    carried: Carried, parsed: Packet, time: int | None
) -> Iterator[tuple[str | None, int | None]]:
    for text, written in carried.samples or ((carried.value, carried.tags.get("timestamp")),):
        offset = parsed.timezone_offset
        yield text, sample_time(written, packet_time=time, offset=offset, zone=ZONE)


def key_of(cells: Cells) -> Key:
    return cells["agent"], cells["module"]


def bounds_of(cells: Cells) -> Bounds:
    return bounds(float(cells["post_process"]), float(cells["min"]), float(cells["max"]))


# -- the comparison --------------------------------------------------------------------


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def replayed(case: Case) -> dict[Key, tuple[State, list[Told]]]:
    feed = Feed(case)
    found = {}
    for cells in rows(case, "modules"):
        key = key_of(cells)
        if cells["disabled"] == "0" and not (
            case.name == "number_formats" and key[1] in NOT_NUMBERS
        ):
            happened: list[Happened] = []
            for type_name, value in feed.values[key]:
                happened += [module(cells, type_name), value]
            found[key] = replay(module(cells, feed.created_as[key]), happened)
    return found


def test_every_state_is_that_of_the_perl_server(case: Case) -> None:
    stored = {key_of(cells): cells for cells in rows(case, "state")}
    found = replayed(case)
    assert len(found) > 2
    for key, (state, _) in found.items():
        expected, cells = stored[key], state_cells(state)
        if expected["value"] != "":
            cells["current_interval"] = str(state.current_interval)
        if key[0] == "real-nolearn":
            # The Perl server moves its times by two hours more.
            cells["last_status_change"] = str(state.last_status_change + 2 * HOUR)
        assert cells == {name: expected[name] for name in cells}, key


def test_every_event_is_that_of_the_perl_server(case: Case) -> None:
    stored: defaultdict[Key, list[tuple[str, ...]]] = defaultdict(list)
    for cells in rows(case, "events"):
        if cells["event_type"].startswith("going_"):
            names = ("event_type", "criticity", "data", "module_status", "validated")
            stored[key_of(cells)].append(tuple(cells[name] for name in names))
    found = {
        key: [
            (
                it.type,
                str(it.severity),
                entities.encode(it.data),
                str(it.status),
                str(int(it.closed)),
            )
            for it in told
        ]
        for key, (_, told) in replayed(case).items()
        if told
    }
    assert found == dict(stored)


# -- what no golden case shows -----------------------------------------------------------

CONFIGURED = Module(critical=Level(80, 0), warning=Level(50, 80))


def sequence(*texts: str, start: int = 1000) -> list[Happened]:
    return [Value(start + 300 * i, text) for i, text in enumerate(texts)]


def told(events: list[Told]) -> list[tuple[str, str, bool]]:
    return [(event.type, event.data, event.closed) for event in events]


def test_unknown_ends_with_the_next_value_whatever_it_waits_for() -> None:
    slow = Module(critical=Level(80, 0), min_ff_event=2)
    before = sequence("90", "90", "90")
    state, events = replay(slow, [*before, Sweep(5000), Value(6000, "10")])
    assert (state.status, state.last_status, state.last_status_change) == (CRITICAL, NORMAL, 6000)
    assert told(events) == [
        ("going_up_critical", "90", True),
        ("going_unknown", "90", True),
        ("going_up_critical", "10", False),
    ]


def test_a_module_that_never_had_a_value_does_not_become_unknown() -> None:
    state, events = replay(CONFIGURED, [Sweep(5000)])
    assert state.status == NOT_INITIALISED
    assert events == []


def test_unknown_leaves_the_known_statuses_alone() -> None:
    state, _ = replay(CONFIGURED, [*sequence("60"), Sweep(5000), Sweep(6000)])
    assert (state.status, state.last_status, state.last_status_change) == (UNKNOWN, UNKNOWN, 5000)
    assert (state.known_status, state.last_known_status) == (WARNING, WARNING)


def test_an_asynchronous_module_is_forgotten_not_unknown() -> None:
    module = Module(type="async_data", critical=Level(80, 0))
    state, events = replay(module, [Value(1000, "90"), Sweep(5000), Sweep(6000)])
    assert (state.status, state.known_status, state.last_status_change) == (NORMAL, NORMAL, 5000)
    assert [(it.type, it.severity) for it in events] == [
        ("going_up_critical", 4),
        ("going_down_normal", 5),
    ]


def test_one_warning_too_many_is_critical_until_something_else_comes() -> None:
    module = Module(warning=Level(50, 0), warning_time=2)
    for warnings, status, count in ((3, WARNING, 2), (4, CRITICAL, 3), (6, CRITICAL, 3)):
        state, _ = replay(module, sequence(*["60"] * warnings))
        assert (state.status, state.warning_count) == (status, count)
    state, _ = replay(module, sequence(*["60"] * 4, "10"))
    assert (state.status, state.warning_count) == (NORMAL, 0)


def test_percentages_are_of_the_value_before() -> None:
    expected = [
        (Level(max=10, percentage=True), ("100", "111"), CRITICAL),
        (Level(max=10, percentage=True), ("100", "109.9"), NORMAL),
        (Level(min=10, percentage=True), ("100", "89.9"), CRITICAL),
        (Level(min=10, percentage=True), ("100", "90"), NORMAL),
        (Level(min=10, max=10, percentage=True), ("100", "111"), CRITICAL),
        (Level(min=10, max=10, percentage=True), ("100", "80"), CRITICAL),
        (Level(min=10, max=10, percentage=True), ("100", "95"), NORMAL),
        (Level(min=10, max=10, percentage=True), ("100",), NORMAL),
    ]
    found = [
        (level, texts, replay(Module(critical=level), sequence(*texts))[0].status)
        for level, texts, _ in expected
    ]
    assert found == expected


def test_a_pending_change_shortens_the_interval() -> None:
    module = Module(critical=Level(80, 0), min_ff_event=1, module_ff_interval=30)
    state, _ = replay(module, sequence("10", "10", "90"))
    assert (state.status, state.current_interval) == (NORMAL, 30)
    state, _ = replay(module, sequence("10", "10", "90", "90"))
    assert (state.status, state.current_interval) == (CRITICAL, 300)


def test_a_quiet_module_tells_nothing_and_changes_all_the_same() -> None:
    state, events = replay(Module(critical=Level(80, 0), quiet=True), sequence("90"))
    assert state.status == CRITICAL
    assert events == []


def test_thresholds_count_from_when_they_were_set() -> None:
    state, events = replay(Module(), [*sequence("90"), CONFIGURED, Value(9000, "90")])
    assert state.status == CRITICAL
    assert told(events) == [("going_up_critical", "90", False)]
