"""What becomes of odd packets, by a running server; and a good one after them is stored soon."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

import pytest

from dataserver.errors import Reason
from tests.support.databases import SQLITE, Database
from tests.support.failures import failures
from tests.support.house import FLAT, MIB, House, agent, good, house, on_sqlite
from tests.support.packets import module, packet
from tests.support.server import Place, Server

__all__ = ["agent", "house"]

# -- files that are no packets ---------------------------------------------------

BOMB = (
    '<?xml version="1.0"?><!DOCTYPE agent_data [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in itertools.pairwise("abcdefghijk"))
    + ']><agent_data agent_name="bomb"><module><name>&k;</name></module></agent_data>'
)
MALFORMED = {
    "tags that do not match": b'<agent_data agent_name="x"><module></agent_data>',
    "binary": bytes(range(256)) * 40,
    "empty": b"",
    "wrong root": b'<report agent_name="x"></report>',
    "trailing garbage": good("garbage") + b"and more",
    "two packets": good("one") + good("two"),
    "NUL": packet("zero", module("m", "a\0b", "generic_data_string")),
    "control character": packet("bell", module("m", "a\7b", "generic_data_string")),
    "control character by number": (
        packet("bell", module("m", "NUMBER", "generic_data_string")).replace(b"NUMBER", b"&#7;")
    ),
    "entity bomb": BOMB.encode(),
    "200,000 levels": b'<agent_data agent_name="deep">'
    + b"<a>" * 200_000
    + b"</a>" * 200_000
    + b"</agent_data>",
}


@on_sqlite
def test_what_is_no_packet_is_set_aside_as_malformed_and_kept(house: House) -> None:
    before = house.server.peak_memory
    names = {what: house.drop(content) for what, content in MALFORMED.items()}

    def check(what: str) -> None:
        found = house.rejection(names[what])
        assert found.reason is Reason.MALFORMED
        kept = house.place.paths().rejected / f"{found.id}.data"
        assert kept.read_bytes() == MALFORMED[what]

    assert failures(check, MALFORMED) == {}
    house.stays_well()
    assert house.server.peak_memory - before < FLAT


@on_sqlite
def test_without_a_name_it_is_set_aside_as_no_agent(house: House) -> None:
    def check(attributes: str) -> None:
        found = house.rejection(house.drop(f"<agent_data {attributes}></agent_data>".encode()))
        assert found.reason is Reason.NO_AGENT

    nameless = ["", 'agent_name=""', 'agent_name="&lt;script>&lt;/script>"', 'AGENT_NAME="x"']
    assert failures(check, nameless) == {}
    house.stays_well()


@on_sqlite
def test_nothing_is_fetched_for_a_packet(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x.dtd"
        declared = {
            "entity": f'<!DOCTYPE agent_data [<!ENTITY e SYSTEM "{url}">]>',
            "parameter entity": f'<!DOCTYPE agent_data [<!ENTITY % e SYSTEM "{url}"> %e;]>',
            "document type": f'<!DOCTYPE agent_data SYSTEM "{url}">',
        }

        def check(kind: str) -> None:
            body = packet("fetch", module("m", "1"))
            if kind == "entity":
                body = body.replace(b">1<", b">&e;<")
            found = house.rejection(house.drop(declared[kind].encode() + body))
            assert found.reason is Reason.MALFORMED
            house.stays_well()
            with pytest.raises(BlockingIOError):
                listener.accept()

        assert failures(check, declared) == {}


@on_sqlite
def test_no_file_of_the_machine_gets_into_a_value(house: House, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not tell")
    declared = f'<!DOCTYPE agent_data [<!ENTITY e SYSTEM "file://{secret}">]>'
    body = packet("thief", module("m", "1", "generic_data_string")).replace(b">1<", b">&e;<")
    assert house.rejection(house.drop(declared.encode() + body)).reason is Reason.MALFORMED
    house.stays_well()
    assert house.states("thief") == {}


# -- uploads that are cut ---------------------------------------------------------


def test_a_cut_upload_waits_and_is_stored_when_it_is_completed(sqlite_database: Database) -> None:
    # However slow the machine is: nothing is given up.
    place = Place(sqlite_database.home, sqlite_database.url, incomplete_after=86_400)
    with Server(place) as server:
        house = House(server, sqlite_database)
        content = good("cut")
        path = place.data_in() / "cut.1.data"
        for end in range(20, len(content), 20):
            # In place, as scp does.
            path.write_bytes(content[:end])
            house.stays_well()
            assert path.exists()
        path.write_bytes(content)
        house.wait_stored("cut")
        assert server.stop() == 0


@on_sqlite
def test_a_cut_upload_that_stays_so_is_set_aside_as_incomplete(house: House, agent: str) -> None:
    content = good(agent)[:-5]
    found = house.rejection(house.drop(content))
    assert found.reason is Reason.INCOMPLETE
    assert (house.place.paths().rejected / f"{found.id}.data").read_bytes() == content
    house.stays_well()
    assert house.packets(agent) == 0


# -- too much ------------------------------------------------------------------------


@on_sqlite
def test_a_file_over_max_packet_is_set_aside_without_being_read(house: House) -> None:
    before = house.server.peak_memory
    # Sparse: it takes no room, but reading it would take all of the memory.
    part = house.place.data_in() / ".huge"
    part.touch()
    os.truncate(part, 500 * MIB)
    part.rename(part.with_name("huge.1.data"))
    found = house.rejection("huge.1.data")
    assert (found.reason, found.size) == (Reason.TOO_LARGE, 500 * MIB)
    house.stays_well()
    assert house.server.peak_memory - before < FLAT


def test_a_string_of_20_mb_is_stored_whole_or_refused_with_the_databases_reason(
    house: House, agent: str
) -> None:
    text = "0123456789abcdef" * (20 * MIB // 16)
    for number, value in ((1, "first"), (3, "last")):
        house.drop(packet(agent, module("said", value, "generic_data_string")), f"x.{number}.data")
    name = house.drop(packet("l" + agent, module("said", text, "generic_data_string")))
    if house.database.kind == SQLITE:
        house.wait_stored("l" + agent)
        assert house.states("l" + agent) == {"said": text}
    else:
        found = house.refusal(name)
        assert found.reason is Reason.REFUSED
        assert "longer than the database accepts" in found.detail
        assert house.packets("l" + agent) == 0
    house.wait_stored(agent, 2)
    house.stays_well()


def test_a_string_of_12_mb_is_stored_whole_everywhere(house: House, agent: str) -> None:
    text = "0123456789abcde\u00e4" * (12 * MIB // 16)
    house.drop(packet(agent, module("said", text, "generic_data_string")))
    house.wait_stored(agent)
    assert house.states(agent) == {"said": text}
    house.stays_well()


def test_a_name_longer_than_the_column_is_set_aside_not_cut(house: House) -> None:
    # The second one is so when it is encoded.
    for name in ("n" * 601, "<" * 300):
        assert house.rejection(house.drop(good(name))).reason is Reason.NAME_TOO_LONG, name
    house.stays_well()


def test_the_longest_name_is_stored(house: House, agent: str) -> None:
    longest = agent.ljust(600, "n")
    house.drop(good(longest))
    house.wait_stored(longest)


def test_a_module_name_over_the_column_is_refused_and_counted_alone(
    house: House, agent: str
) -> None:
    refused = house.refused()
    house.drop(packet(agent, module("n" * 70_000, "1"), module("load", "2")))
    house.wait_stored(agent)
    assert house.states(agent) == {"load": "2.00000"}
    house.server.wait_counted("refused", refused + 1)
    house.stays_well()


# -- times ---------------------------------------------------------------------------


@on_sqlite
def test_with_a_time_that_cannot_be_read_modules_are_created_and_values_refused(
    house: House, agent: str
) -> None:
    refused = house.refused()
    house.drop(packet(agent, module("a", "1"), module("b", "2"), timestamp="yesterday"))
    house.wait_stored(agent)
    assert {name: value or "" for name, value in house.states(agent).items()} == {"a": "", "b": ""}
    assert house.numbers(agent, "a") == []
    house.server.wait_counted("refused", refused + 2)
    house.stays_well()


@on_sqlite
def test_a_time_far_in_the_future_is_set_aside_as_clock_and_does_no_harm(
    house: House, agent: str
) -> None:
    content = packet(agent, module("load", "1.5"), timestamp="2099/01/01 00:00:00")
    found = house.rejection(house.drop(content, f"{agent}.1.data"))
    assert (found.reason, found.agent) == (Reason.CLOCK, agent)
    house.drop(good(agent), f"{agent}.2.data")
    house.wait_stored(agent)
    assert house.states(agent) == {"load": "1.50000"}


# -- values --------------------------------------------------------------------------


@on_sqlite
def test_what_is_no_number_is_refused_and_counted_the_rest_stored(house: House, agent: str) -> None:
    odd = ["nan", "inf", "-inf", "1e400", "text", "0x10", "", "1 2", "--1", "1,2,3"]
    modules = {f"odd {number}": value for number, value in enumerate(odd)} | {"load": "3"}
    refused = house.refused()
    house.drop(packet(agent, *itertools.starmap(module, modules.items())))
    house.wait_stored(agent)
    stored = {name: house.numbers(agent, name) for name in modules}
    assert stored == {name: [3.0] if name == "load" else [] for name in modules}
    house.server.wait_counted("refused", refused + len(odd))
    house.stays_well()


def test_a_module_of_unknown_type_is_refused_and_counted_the_rest_stored(
    house: House, agent: str
) -> None:
    kinds = ["no_such_type", "generic_data\u00e4", "generic_data' OR 1=1 --"]
    refused = house.refused()
    modules = (module(f"odd {kind}", "1", kind) for kind in kinds)
    house.drop(packet(agent, *modules, module("load", "3")))
    house.wait_stored(agent)
    assert house.states(agent) == {"load": "3.00000"}
    house.server.wait_counted("refused", refused + len(kinds))
    house.stays_well()


def test_the_same_module_twice_in_a_packet_stores_both_in_order(house: House, agent: str) -> None:
    house.drop(packet(agent, module("load", "5"), module("load", "2"), module("load", "9")))
    house.wait_stored(agent)
    assert house.numbers(agent, "load") == [5.0, 2.0, 9.0]
    assert house.states(agent) == {"load": "9.00000"}
    house.stays_well()


def test_what_is_sql_or_a_format_or_a_path_is_text(house: House, agent: str) -> None:
    text = "'; DROP TABLE tagente; -- %s %(x)s \\' \\\\ ../../etc/passwd \U0001f4a9 \u2028"
    name = "a' %s \\ ../x"
    house.drop(packet(agent, module(name, text, "generic_data_string")))
    house.wait_stored(agent)
    assert list(house.states(agent).values()) == [text]
    house.stays_well()
