"""What is stored equals what the Perl data server stored, case by case, in every kind of store."""

from __future__ import annotations

import contextlib

import pytest

from tests.support import golden
from tests.support.compare import differences
from tests.support.databases import SQLITE, Database
from tests.support.golden import Case, Row
from tests.support.ingest import Instance
from tests.support.rows import stored

#: Case -> a module of it, and how its values end: several of one second, in their order.
IN_ORDER = {
    "names": ("CASE", ["1.0", "2.0", "0.0", "1.0", "0.0", "2.0"]),
    "real": ("Syslog", ["n=22\n", "n=23\n", "n=24\n", "n=21\n"]),
}


@pytest.mark.parametrize("case", golden.cases(), ids=lambda case: case.name)
def test_rows_and_the_order_of_events_are_those_of_the_perl_server(
    case: Case, database: Database
) -> None:
    packets = {file: file.read_bytes() for step in case.steps() for file in step}
    assert take_in(case, database).rejected == []
    assert {file: file.read_bytes() for file in packets} == packets
    has_ordinal = database.prepare().has_ordinal
    with database.engine().connect() as conn:
        found = {table: stored(conn, table, has_ordinal=has_ordinal) for table in golden.TABLES}
    assert different(case, found) == {}
    assert by_module(found["events"]) == by_module(golden.expected(case, "events"))
    # Where an ordinal says it, our history keeps the order of values of one second.
    if has_ordinal and case.name in IN_ORDER:
        module, values = IN_ORDER[case.name]
        of_module = [row["value"] or "" for row in found["values"] if row["module"] == module]
        assert [value[-len(end) :] for value, end in zip(of_module, values, strict=True)] == values


def take_in(case: Case, database: Database) -> Instance:
    """On SQLite each step by a new process, which knows nothing; on a server all by one."""
    instance = Instance(database)
    with contextlib.ExitStack() as stack:
        step = instance.run_once
        if database.kind != SQLITE:
            step = stack.enter_context(instance.one_process()).step
        for files in case.steps():
            instance.place((file, case.modified(file)) for file in files)
            step()
    return instance


def different(case: Case, found: dict[str, list[Row]]) -> dict[str, list[str]]:
    """The differences of every table that has some."""
    strings = string_modules(golden.expected(case, "modules"))
    told = {
        table: differences(golden.expected(case, table), rows, strings)
        for table, rows in found.items()
    }
    return {table: lines for table, lines in told.items() if lines}


def string_modules(rows: list[Row]) -> set[str]:
    return {row["module"] or "" for row in rows if (row["type"] or "").endswith("string")}


def by_module(events: list[Row]) -> dict[tuple[str | None, str | None], list[Row]]:
    """Events in their order, of each module (and of agents as such)."""
    ordered: dict[tuple[str | None, str | None], list[Row]] = {}
    for event in events:
        ordered.setdefault((event["agent"], event["module"]), []).append(event)
    return ordered


#: Of these the Perl server's counts are those of one packet ago (or nan was no value for us).
LAGGING = {"flipflop", "real", "number_formats"}


def test_the_counts_expected_are_the_perl_servers_where_it_is_not_behind() -> None:
    behind = {
        case.name
        for case in golden.cases()
        if golden.read(case.folder / "expected" / "agents.tsv") != golden.expected(case, "agents")
    }
    assert behind == LAGGING


def test_every_case_has_packets_and_rows() -> None:
    for case in golden.cases():
        assert all(case.steps())
        assert golden.expected(case, "state")


def test_a_difference_in_any_cell_is_seen() -> None:
    case = Case("real")
    strings = string_modules(golden.expected(case, "modules"))
    for table in golden.TABLES:
        rows = golden.expected(case, table)
        for name in rows[0]:
            changed = [{**rows[0], name: "something else"}, *rows[1:]]
            assert differences(rows, changed, strings), (table, name)
        assert not differences(rows, rows, strings)
        assert differences(rows, rows[1:], strings)
        assert differences(rows, [*rows, rows[0]], strings)
