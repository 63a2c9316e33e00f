"""What is stored equals what the Perl data server stored, case by case, in every kind of store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import golden
from tests.support.compare import differences
from tests.support.databases import Database
from tests.support.golden import Case, Row
from tests.support.ingest import Instance
from tests.support.rows import stored


@pytest.mark.parametrize("case", golden.cases(), ids=lambda case: case.name)
def test_the_rows_are_those_of_the_perl_server(case: Case, database: Database) -> None:
    assert take_in(case, database).rejected == []
    assert compared(case, database) == {}


def take_in(case: Case, database: Database) -> Instance:
    instance = Instance(database)
    for files in case.steps():
        instance.take_in((file, case.modified(file)) for file in files)
    return instance


def compared(case: Case, database: Database) -> dict[str, list[str]]:
    """The differences of every table that has some."""
    has_ordinal = database.prepare().has_ordinal
    strings = string_modules(golden.expected(case, "modules"))
    found = {}
    with database.engine().connect() as conn:
        for table in golden.TABLES:
            rows = stored(conn, table, has_ordinal=has_ordinal)
            lines = differences(golden.expected(case, table), rows, strings)
            if lines:
                found[table] = lines
    return found


def string_modules(rows: list[Row]) -> set[str]:
    return {row["module"] or "" for row in rows if (row["type"] or "").endswith("string")}


@pytest.mark.parametrize(
    ("name", "module", "values"),
    [
        ("names", "CASE", ["1.0", "2.0", "0.0", "1.0", "0.0", "2.0"]),
        ("real", "Syslog", ["n=22\n", "n=23\n", "n=24\n", "n=21\n"]),
    ],
)
def test_our_history_keeps_the_order_of_values_of_the_same_second(
    name: str, module: str, values: list[str], database: Database
) -> None:
    if not database.prepare().has_ordinal:
        return
    take_in(Case(name), database)
    with database.engine().connect() as conn:
        rows = stored(conn, "values", has_ordinal=True)
    of_module = [row["value"] or "" for row in rows if row["module"] == module]
    assert [value[-len(end) :] for value, end in zip(of_module, values, strict=True)] == values


@pytest.mark.parametrize("case", golden.cases(), ids=lambda case: case.name)
def test_the_events_of_a_module_come_in_the_same_order(case: Case, database: Database) -> None:
    take_in(case, database)
    with database.engine().connect() as conn:
        found = stored(conn, "events", has_ordinal=database.prepare().has_ordinal)
    assert by_module(found) == by_module(golden.expected(case, "events"))


def by_module(events: list[Row]) -> dict[tuple[str | None, str | None], list[Row]]:
    """Events in their order, of each module (and of agents as such)."""
    ordered: dict[tuple[str | None, str | None], list[Row]] = {}
    for event in events:
        ordered.setdefault((event["agent"], event["module"]), []).append(event)
    return ordered


#: Of these the Perl server's counts are those of one packet ago (or nan was no value for us).
LAGGING = {"flipflop", "real", "number_formats"}


@pytest.mark.parametrize("case", golden.cases(), ids=lambda case: case.name)
def test_the_counts_expected_are_the_perl_servers_where_it_is_not_behind(case: Case) -> None:
    recorded = golden.read(case.folder / "expected" / "agents.tsv")
    assert (recorded == golden.expected(case, "agents")) == (case.name not in LAGGING)


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


def test_the_packets_are_left_as_they_are(database: Database, tmp_path: Path) -> None:
    case = Case("walk")
    before = {file: file.read_bytes() for step in case.steps() for file in step}
    Instance(database).take_in((file, None) for file in before)
    assert {file: file.read_bytes() for file in before} == before
