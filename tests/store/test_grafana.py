"""The Grafana dashboard's queries, run as Grafana runs them, against what our own graphs say."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import MySQLdb
import pytest
from sqlalchemy import Engine, insert, select

from dataserver.graphs.model import ModuleGraph, Span
from dataserver.graphs.reading import Graphs
from dataserver.model import Arrival
from dataserver.rules import entities
from dataserver.store import schema
from dataserver.store.database import open_readonly
from dataserver.store.layout import inspect
from tests.support.databases import MARIADB, PANDORA, Database, opened
from tests.support.ingest import ZONE, Ingest, arrival
from tests.support.packets import START, module, packet

FOLDER = Path(__file__).parents[2] / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dataserver.json").read_text(encoding="utf-8"))
SOURCE = {"type": "mysql", "uid": "${datasource}"}

HOUR = 3_600
INTERVAL = 300
ROUNDS = 240
#: Rounds without a packet: a long hole, and shorter ones.
MISSING = {*range(40, 53), 100, 150, 151}
LAST = START + (ROUNDS - 1) * INTERVAL
#: The agent has been silent for an hour.
NOW = LAST + HOUR
AGENT, ALIAS = "web <one>", "Web's (first)"
OTHER = "other"
#: Values of one packet that has many of them, one a second.
MANY = 900
ENTITIES = re.compile(r"&[#\w]+;")
#: Grafana runs no query in which it finds this.
REFUSED = re.compile(
    r"(?im)(\s*show\s+grants|[\s,](session_|current_|system_)?user(\([^)]*\))?)([\s,;]|$)"
)


# -- the dashboard as a document -------------------------------------------------------------


def panels() -> dict[str, dict[str, Any]]:
    return {panel["title"]: panel for panel in DASHBOARD["panels"]}


def variables() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def annotations() -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in DASHBOARD["annotations"]["list"]}


def queries() -> dict[str, dict[str, Any]]:
    """Every query of the dashboard by where it stands, with its SQL and its format."""
    found = {f"{title} {q['refId']}": q for title, p in panels().items() for q in p["targets"]}
    found |= {f"annotation {name}": each["target"] for name, each in annotations().items()}
    for name, each in variables().items():
        if each["type"] == "query":
            found[f"variable {name}"] = {"rawSql": each["query"], "format": "table"}
    return found


def members(thing: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, however deep."""
    if isinstance(thing, dict):
        yield from thing.items()
        thing = list(thing.values())
    if isinstance(thing, list):
        for value in thing:
            yield from members(value)


def test_panels_have_ids_of_their_own_and_do_not_lie_over_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) == len(panels())
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    shaded = {number for each in annotations().values() for number in each["filter"]["ids"]}
    assert shaded <= set(ids)


def test_everything_asks_the_data_source_that_was_chosen() -> None:
    asked = [value for key, value in members(DASHBOARD) if key == "datasource"]
    assert len(asked) >= len(queries())
    assert all(source == SOURCE for source in asked)
    assert [value for key, value in members(DASHBOARD) if key == "uid"].count("${datasource}") == (
        len(asked)
    )
    assert DASHBOARD["id"] is None
    assert variables()["datasource"]["query"] == "mysql"


def test_no_address_of_elsewhere_stands_in_it() -> None:
    texts = [value for _, value in members(DASHBOARD) if isinstance(value, str)]
    assert not [text for text in texts if re.search(r"\w:?//|^//", text)]


def test_the_file_is_written_so_that_people_can_compare_it() -> None:
    text = (FOLDER / "dataserver.json").read_text(encoding="utf-8")
    assert text == json.dumps(DASHBOARD, indent=2) + "\n"


def test_variables_reach_sql_as_numbers_only() -> None:
    number = re.compile(r"CAST\('\$\{\w+:percentencode\}' AS UNSIGNED\)")
    wrong = []
    for name, query in queries().items():
        text = query["rawSql"]
        for place in re.finditer(r"\$\{[^}]*\}|\$(?!__)\w+|\[\[", text):
            around = text[: place.start()][-6:] + place[0] + text[place.end() :][:14]
            if not number.fullmatch(around):
                wrong.append((name, around))
        if REFUSED.search(text):
            wrong.append((name, "refused"))
    assert wrong == []


# -- a filled database, and Grafana's user ---------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """A database with two agents, our own graphs of it, and Grafana's way to it."""

    database: Database
    engine: Engine
    graphs: Graphs
    reader: MySQLdb.Connection

    def agent(self, name: str = AGENT) -> int:
        a = schema.agent.c
        with self.engine.connect() as conn:
            return conn.execute(select(a.id).where(a.name == entities.encode(name))).scalar_one()

    def module(self, name: str, agent: str = AGENT) -> int:
        m = schema.module.c
        query = select(m.id).where(m.agent_id == self.agent(agent), m.name == entities.encode(name))
        with self.engine.connect() as conn:
            return conn.execute(query).scalar_one()

    def graph(self, module_id: int, start: int, end: int, now: int = NOW) -> ModuleGraph:
        return self.graphs.module(module_id, start, end, 4_000, now)

    def ask(
        self, name: str, start: int = START, end: int = NOW, now: int = NOW, **chosen: object
    ) -> list[dict[str, Any]]:
        """The rows of a query, as Grafana would get them at the time ``now``."""
        text = _interpolated(queries()[name]["rawSql"], start, end, chosen)
        with contextlib.closing(self.reader.cursor()) as cursor:
            cursor.execute(f"SET timestamp = {now}")
            cursor.execute(text)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _interpolated(text: str, start: int, end: int, chosen: dict[str, object]) -> str:
    """The query with its variables and macros replaced, as Grafana does it."""

    def value(found: re.Match[str]) -> str:
        return quote(str(chosen.get(found[1], "")), safe="-_.~")

    text = re.sub(r"\$\{(\w+):percentencode\}", value, text)
    text = text.replace("$__unixEpochFrom()", str(start)).replace("$__unixEpochTo()", str(end))
    assert "$__" not in text, "a macro that this test does not know"
    return text


@pytest.fixture(scope="module", params=[MARIADB, PANDORA])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    with opened(request.param, tmp_path_factory.mktemp("grafana")) as database:
        _fill(database)
        engine = open_readonly(database.url, home=database.home)
        layout = inspect(engine)
        assert layout.has_ordinal is (request.param == MARIADB)
        with _reader(database) as reader:
            yield Filled(database, engine, Graphs(engine, layout, ZONE), reader)
        engine.dispose()


@contextlib.contextmanager
def _reader(database: Database) -> Iterator[MySQLdb.Connection]:
    """A connection of the user that the README has one make, who goes again."""
    (statements,) = re.findall(r"```sql\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    user = "'grafana'@'127.0.0.1'"
    statements = statements.replace("'grafana'@'192.0.2.10'", user)
    statements = statements.replace("pandora.", f"{database.name}.")
    assert database.server is not None
    database.server.execute(*filter(str.strip, statements.split(";\n")))
    try:
        reader = MySQLdb.connect(
            host="127.0.0.1",
            port=database.server.port,
            user="grafana",
            password="a password",
            database=database.name,
            charset="utf8mb4",
        )
        with contextlib.closing(reader):
            yield reader
    finally:
        database.server.execute(f"DROP USER {user}")


def _fill(database: Database) -> None:
    ingest = Ingest(database)
    rounds = [number for number in range(ROUNDS) if number not in MISSING]
    packets = [_packet(AGENT, number, *_modules(number), alias=ALIAS) for number in rounds]
    packets += [_packet(OTHER, number, module("load", "7")) for number in range(5)]
    for sent in packets:
        # Events have the time at which they were noticed.
        outcomes, _ = ingest.recorder.record([sent], sent.time)
        assert outcomes[0].error is None
    # What is older was folded: of the hours before, one is missing.
    with database.engine().begin() as conn:
        a = schema.agent.c
        other = conn.execute(select(a.id).where(a.name == OTHER)).scalar_one()
        rows = [
            {"agent_id": other, "hour": START - hours * HOUR, "packets": 12 - hours % 2}
            for hours in (30, 29, 28, 26, 25, *range(1, 24))
        ]
        conn.execute(insert(schema.packet_hour), rows)
        # The text was a number once.
        m = schema.module.c
        release = conn.execute(select(m.id).where(m.name == "release")).scalar_one()
        number = {"module_id": release, "time": START - HOUR, "value": 1.5}
        conn.execute(insert(schema.number_history).inline(), number)
        # One that came late, into an hour that was folded already.
        late = {"agent_id": other, "time": START - 29 * HOUR + 600, "digest": bytes(16)}
        conn.execute(insert(schema.packet), late | {"server": "late", "arrived": NOW})


def _packet(agent: str, number: int, *modules: str, alias: str = "") -> Arrival:
    time = START + number * INTERVAL
    root = {"agent_alias": alias or agent, "interval": INTERVAL}
    return arrival(packet(agent, *modules, time=time, **root))


def _modules(number: int) -> list[str]:
    load = (number // 3 * 37) % 101
    limits = {"min_warning": 60, "max_warning": 80, "min_critical": 80, "max_critical": 0}
    outside = {"min_critical": 10, "max_critical": 90, "critical_inverse": 1, "unit": "m/s"}
    found = [
        module("load", str(load), **limits),
        module("flow & ebb", str(load / 2), **outside),
        module("steady", "5"),
        module("daemon", str(int(number % 50 < 45)), "generic_proc"),
        module("release", f"v{number // 60} <b>", "generic_data_string"),
    ]
    if number == 200:
        first = START + number * INTERVAL - MANY
        values = [(str(place * 7_919 % 1_000), first + place) for place in range(MANY)]
        found += [module("burst", values), module("log", values, "async_string")]
    return found


# -- every query -----------------------------------------------------------------------------


def test_a_query_gives_what_its_panel_can_read(filled: Filled) -> None:
    wrong = []
    for chosen in ("load", "daemon", "release", "burst", "log", None):
        values: dict[str, object] = {"agent": "", "module": "", "group": ""}
        if chosen is not None:
            values = {"agent": filled.agent(), "module": filled.module(chosen), "group": 0}
        for name in queries():
            rows = filled.ask(name, **values)
            if not _readable(name, rows) or (
                # Where nothing is chosen, only the lists to choose from have something.
                chosen is None
                and not name.startswith("variable")
                and any(cell for row in rows for cell in row.values())
            ):
                wrong.append((name, chosen, rows))
    assert wrong == []


def _readable(name: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a query's rows have the columns, the types and the order that Grafana wants."""
    if name.startswith("variable"):
        texts = [row["__text"] for row in rows if list(row) == ["__text", "__value"]]
        return len(set(texts)) == len(rows)
    times = [row["time"] for row in rows if "time" in row]
    in_order = all(isinstance(time, int) for time in times) and times == sorted(times)
    if queries()[name]["format"] != "time_series":
        return in_order
    values = [value for row in rows for key, value in row.items() if key not in ("time", "metric")]
    return in_order and values == [float(value) for value in values]


def test_a_variable_from_an_address_is_a_number_and_nothing_else(filled: Filled) -> None:
    steady = filled.module("steady")
    known = filled.ask("Module A", module=steady)
    wrong = []
    for hostile, expected in (
        ("{} OR 1=1", known),
        ("' OR '1'='1", []),
        ("\\' OR 1=1 -- ", []),
        ('" OR ""="', []),
        ("{}) UNION SELECT 1,2 -- ", known),
    ):
        rows = filled.ask("Module A", module=hostile.format(steady))
        if rows != expected:
            wrong.append((hostile, rows))
    assert known
    assert wrong == []


def test_the_documented_user_sees_no_secrets_and_changes_nothing(filled: Filled) -> None:
    for statement in (
        "SELECT plugin_pass FROM tagente_modulo",
        "SELECT snmp_community FROM tagente_modulo",
        "SELECT password FROM tgrupo",
        "SELECT * FROM tagent_version",
        "INSERT INTO tagente_datos (id_agente_modulo, datos, utimestamp) VALUES (1, 1, 1)",
        "DELETE FROM tpacket",
        "CREATE TABLE mine (id INT)",
    ):
        with (
            contextlib.closing(filled.reader.cursor()) as cursor,
            pytest.raises(MySQLdb.Error, match="denied"),
        ):
            cursor.execute(statement)


# -- the module's graph ----------------------------------------------------------------------


def drawn(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(row["time"], row["value"]) for row in rows]


def test_the_line_is_the_step_function_from_the_value_carried_in_to_the_end(
    filled: Filled,
) -> None:
    for name in ("load", "flow & ebb", "daemon"):
        module_id = filled.module(name)
        for start, end in ((0, ROUNDS), (11, 50), (45, 60), (-20, 30)):
            span = (START + start * INTERVAL + 1, START + end * INTERVAL)
            graph = filled.graph(module_id, *span)
            assert graph.is_exact
            expected = [(point.time, point.value) for point in graph.points]
            found = drawn(filled.ask("Module A", *span, module=module_id))
            assert [point for point in found if point[0] < span[1]] == expected, (name, start)
            held = found[-2][1] if found[-2][0] < span[1] else found[-1][1]
            assert found[-1] == (span[1], held), (name, start)


def test_a_value_that_never_changed_is_a_line_from_edge_to_edge(filled: Filled) -> None:
    steady = filled.module("steady")
    start, end = START + 100 * INTERVAL, START + 130 * INTERVAL
    assert drawn(filled.ask("Module A", start, end, module=steady)) == [(start, 5), (end, 5)]


def test_the_line_ends_now_where_the_span_is_longer(filled: Filled) -> None:
    steady = filled.module("steady")
    found = drawn(filled.ask("Module A", NOW - HOUR, NOW + HOUR, module=steady))
    assert found == [(NOW - HOUR, 5), (NOW, 5)]
    assert filled.ask("Module A", NOW + 1, NOW + HOUR, module=steady) == []


def test_before_the_first_value_there_is_no_line(filled: Filled) -> None:
    steady = filled.module("steady")
    assert filled.ask("Module A", START - HOUR, START - 1, module=steady) == []
    assert drawn(filled.ask("Module A", START - HOUR, NOW, module=steady))[0] == (START, 5)


def test_another_agents_module_of_that_name_is_not_mixed_in(filled: Filled) -> None:
    found = drawn(filled.ask("Module A", module=filled.module("load", OTHER)))
    assert {value for _, value in found} == {7}


def test_of_more_changes_than_fit_least_and_greatest_of_each_column_stay(filled: Filled) -> None:
    burst = filled.module("burst")
    start, end = START, START + 30 * 86_400
    step = (end - start) // 1_000
    graph = filled.graph(burst, START, NOW)
    assert graph.is_exact
    columns: dict[int, list[float]] = {}
    for point in graph.points:
        columns.setdefault((point.time - start) // step, []).append(point.value)
    found = drawn(filled.ask("Module A", start, end, module=burst))
    assert len(found) <= 4 * len(columns) + 1
    for column, values in columns.items():
        inside = [value for time, value in found if (time - start) // step == column]
        assert (min(inside), max(inside)) == (min(values), max(values))
    assert found[-1] == (NOW, graph.points[-1].value)


def test_thresholds_are_lines_where_the_zones_begin_and_end(filled: Filled) -> None:
    def lines(module: str) -> dict[str, float]:
        rows = filled.ask("Module B", module=filled.module(module))
        assert {row["time"] for row in rows} <= {START, NOW}
        return {row["metric"]: row["value"] for row in rows}

    assert lines("load") == {"warning from": 60, "warning to": 80, "critical from": 80}
    assert lines("flow & ebb") == {"critical below": 10, "critical from": 90}
    assert lines("steady") == {}
    zones = filled.graph(filled.module("load"), START, NOW).zones
    assert [(zone.status, zone.low, zone.high) for zone in zones] == [
        ("warning", 60, 80),
        ("critical", 80, None),
    ]


# -- bands -----------------------------------------------------------------------------------


def bands(rows: list[dict[str, Any]], end: int) -> list[tuple[int, int, str]]:
    """The states as bands, equal neighbours together, as the state timeline merges them."""
    ends = [*(row["time"] for row in rows[1:]), end]
    found: list[tuple[int, int, str]] = []
    for row, until in zip(rows, ends, strict=False):
        if row["state"] is None or until == row["time"]:
            continue
        if found and found[-1][1:] == (row["time"], row["state"]):
            found[-1] = (found[-1][0], until, row["state"])
        else:
            found.append((row["time"], until, row["state"]))
    return found


def test_texts_are_bands_that_hold_until_the_next_text(filled: Filled) -> None:
    release = filled.module("release")
    for span in ((START, NOW), (START + 70 * INTERVAL, START + 190 * INTERVAL)):
        graph = filled.graph(release, *span)
        found = bands(filled.ask("Text, up and down A", *span, module=release), span[1])
        assert found == [(band.start, band.end, band.text) for band in graph.bands]
        assert len(found) >= 2


def test_up_and_down_are_bands(filled: Filled) -> None:
    daemon = filled.module("daemon")
    points = filled.graph(daemon, START, NOW).points
    rows = [{"time": p.time, "state": "up" if p.value else "down"} for p in points]
    found = bands(filled.ask("Text, up and down A", module=daemon), NOW)
    assert found == bands(rows, NOW)
    assert [state for _, _, state in found[:3]] == ["up", "down", "up"]


def test_a_band_ends_now_where_the_span_is_longer(filled: Filled) -> None:
    release = filled.module("release")
    rows = filled.ask("Text, up and down A", NOW - 60, NOW + HOUR, module=release)
    assert [(row["time"], row["state"] is None) for row in rows] == [
        (NOW - 60, False),
        (NOW, True),
    ]


def test_texts_too_many_to_be_told_apart_are_counted(filled: Filled) -> None:
    log = filled.module("log")
    start, end = START, START + 30 * 86_400
    rows = filled.ask("Text, up and down A", start, end, module=log)
    counted = [int(row["state"].split()[0]) for row in rows if "changes" in (row["state"] or "")]
    assert sum(counted) == MANY
    last = filled.graph(log, START, NOW).bands[-1].text
    assert [row["state"] for row in rows][-2:] == [last, None]


def test_a_number_has_no_bands_and_a_text_no_line(filled: Filled) -> None:
    assert bands(filled.ask("Text, up and down A", module=filled.module("load")), NOW) == []
    assert filled.ask("Module A", module=filled.module("release")) == []


# -- the agent's packets ---------------------------------------------------------------------


def silences(filled: Filled, agent: str, start: int, end: int, now: int = NOW) -> list[Span]:
    rows = filled.ask("annotation No packet", start, end, now, agent=filled.agent(agent))
    return [Span(row["time"], row["timeend"]) for row in rows]


def test_silences_are_shaded_as_in_our_own_graphs(filled: Filled) -> None:
    for agent, start, end in (
        (AGENT, START, NOW),
        (AGENT, START + 42 * INTERVAL, START + 45 * INTERVAL),
        (AGENT, START - HOUR, NOW + HOUR),
        (AGENT, LAST + 10, NOW + HOUR),
        (OTHER, START - 40 * HOUR, START + HOUR),
        (OTHER, START - 28 * HOUR - 100, START - 25 * HOUR),
    ):
        known = filled.graphs.access(filled.agent(agent), start, end, 1_000, NOW).silences
        assert silences(filled, agent, start, end) == list(known.spans), (agent, start)
        assert known.spans, (agent, start)


def test_a_hole_is_shaded_from_when_a_packet_was_due(filled: Filled) -> None:
    found = silences(filled, AGENT, START, LAST)
    assert found == [
        Span(START + first * INTERVAL, START + end * INTERVAL)
        for first, end in ((40, 53), (100, 101), (150, 152))
    ]


def test_packets_are_counted_against_what_was_expected(filled: Filled) -> None:
    for agent, start, end in (
        (AGENT, START, NOW),
        (AGENT, START + 30 * INTERVAL + 7, START + 60 * INTERVAL),
        (AGENT, START - 10 * HOUR, NOW + HOUR),
        (OTHER, START - 40 * HOUR - 1_000, START + 2 * HOUR),
    ):
        agent_id = filled.agent(agent)
        graph = filled.graphs.access(agent_id, start, end, 200, NOW)
        shown = [column for column in graph.columns if column.start < min(end, NOW)]
        rows = filled.ask("Packets of the agent A", start, end, agent=agent_id)
        assert [(row["time"], int(row["packets"])) for row in rows] == [
            (column.start, column.packets) for column in shown
        ], (agent, start)
        expected = [column.expected for column in shown]
        assert [float(row["expected"]) for row in rows] == pytest.approx(expected, abs=1e-3)
        (share,) = filled.ask("Packets that arrived A", start, end, agent=agent_id)
        assert (share["packets"], share["expected"]) == (graph.packets, graph.expected)
        assert float(share["share"]) == pytest.approx(graph.share, abs=1e-3)


def test_holes_of_an_agent_are_empty_bars(filled: Filled) -> None:
    rows = filled.ask("Packets of the agent A", START, LAST, agent=filled.agent())
    step = rows[1]["time"] - rows[0]["time"]
    empty = {row["time"] for row in rows if row["packets"] == 0}
    assert {START + number * INTERVAL for number in range(41, 52)} <= {
        time + offset for time in empty for offset in range(0, step, INTERVAL)
    }


def test_of_an_agent_never_heard_of_no_share_is_told(filled: Filled) -> None:
    long_ago = (START - 90 * 86_400, START - 80 * 86_400)
    assert filled.ask("Packets that arrived A", *long_ago, agent=filled.agent()) == []


# -- what else it shows ----------------------------------------------------------------------


def test_events_of_the_module_are_marked(filled: Filled) -> None:
    load = filled.module("load")
    marks = filled.graph(load, START, NOW).marks
    rows = filled.ask("annotation Events", module=load)
    assert [(row["time"], entities.decode(row["text"]), row["tags"]) for row in rows] == [
        (mark.time, mark.text, mark.type) for mark in marks
    ]
    assert len(marks) > 3
    # Grafana takes these for HTML: no angle bracket of a packet's may be one.
    assert not [row for row in rows if "<" in row["text"]]


def test_the_present_state_is_told(filled: Filled) -> None:
    (row,) = filled.ask("Status A", module=filled.module("steady"))
    assert row == {"status": 0}
    (row,) = filled.ask("Newest value A", module=filled.module("flow & ebb"))
    assert re.fullmatch(r"[\d.]+ m/s", row["value"])
    (row,) = filled.ask("Last packet A", agent=filled.agent())
    assert row == {"packet": LAST * 1_000}
    statuses = panels()["Status"]["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert [statuses[str(number)]["text"] for number in range(5)] == [
        "normal",
        "critical",
        "warning",
        "unknown",
        "not initialised",
    ]


def test_the_table_has_the_agents_modules_by_their_names(filled: Filled) -> None:
    rows = filled.ask("Modules of the agent A", agent=filled.agent())
    names = {"load", "flow & ebb", "steady", "daemon", "release", "burst", "log"}
    assert {row["module"] for row in rows} == names
    assert {row["id"] for row in rows} == {filled.module(name) for name in names}


def test_lists_to_choose_from_show_names_and_hold_ids(filled: Filled) -> None:
    agents = {row["__value"]: row["__text"] for row in filled.ask("variable agent", group=0)}
    assert agents == {filled.agent(): f"{ALIAS} ({AGENT})", filled.agent(OTHER): OTHER}
    modules = filled.ask("variable module", agent=filled.agent())
    assert {row["__text"]: row["__value"] for row in modules}["flow & ebb"] == filled.module(
        "flow & ebb"
    )
    groups = filled.ask("variable group")
    assert (groups[0]["__text"], groups[0]["__value"]) == ("all", 0)
    assert not [row for row in groups if ENTITIES.search(row["__text"])]
    chosen = [filled.ask("variable agent", group=row["__value"]) for row in groups[1:]]
    assert sum(map(len, chosen)) == len(agents)
