"""Servers and instances: who is alive, what waits, and which host of a pair takes the packets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.config.load import load_to_look
from dataserver.console.html import page
from dataserver.console.replies import reply
from dataserver.console.source import Source
from dataserver.errors import DataserverError
from dataserver.fleet.managers import manager_of
from dataserver.fleet.model import Managed
from dataserver.fleet.overview import Row, overview
from dataserver.fleet.registry import Registry
from dataserver.spool.rejected import Rejected
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.processes import ServerProcess, processes_seen
from dataserver.vrrp.model import Host
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.status import Standing, look

# -- servers: every process on the database by host, and what this machine knows of its own

#: A process that has said nothing for twice its `server_keepalive` is taken for dead.
_GIVEN_UP = 2
_KEEPALIVE = 45
#: How a process is.
ALIVE, SILENT, STOPPED = "alive", "silent", "stopped"


@dataclass(frozen=True, slots=True)
class Process:
    """One server process, as it last told the database; ``state``: "alive", "silent", "stopped".

    ``age`` is how many seconds ago that was; ``oldest_age`` the age of its oldest packet.
    """

    server_name: str
    instance: str
    pid: int | None
    version: str
    state: str
    age: float
    queue: int | None
    oldest_age: float | None
    packets_per_second: float | None
    rejected: int | None


@dataclass(frozen=True, slots=True)
class HostView:
    """A host with its processes.  ``takes_packets`` None: not known.

    ``why``: how that is known, in words.
    """

    host: str
    processes: tuple[Process, ...]
    takes_packets: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Local:
    """An instance of this home; ``rejected`` counts packets, None: may not be looked at."""

    row: Row
    rejected: int | None


@dataclass(frozen=True, slots=True)
class PairView:
    """What this host, ``host``, knows of its pair; ``since`` in epoch seconds."""

    host: str
    has_address: bool
    state: str | None
    since: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Servers:
    """All that is known; ``database_error`` says why nothing is from the database."""

    hosts: tuple[HostView, ...]
    database_error: str | None
    manager: str | None
    instances: tuple[Local, ...]
    home_error: str | None
    pair: PairView | None


def servers(source: Source) -> Servers:
    """Servers and instances; raises nothing for what is wrong with one of them."""
    seen: list[ServerProcess] = []
    database_error = None
    try:
        store = source.store()
        with source.watched(), translating("read the servers"), reading(store.engine) as conn:
            seen = processes_seen(conn, store.layout)
    except DataserverError as error:
        database_error = str(error)
    manager, locals_, home_error = _instances(source)
    standing = _standing(source)
    return Servers(
        hosts=tuple(_hosts(source, seen, standing)),
        database_error=database_error,
        manager=manager,
        instances=locals_,
        home_error=home_error,
        pair=None if standing is None else _pair(standing),
    )


def _instances(source: Source) -> tuple[str | None, tuple[Local, ...], str | None]:
    """Who runs the home's instances, each of them, and what hindered looking."""
    registry = Registry(source.home)
    try:
        instances = registry.instances()
    except FileNotFoundError:
        return None, (), None
    except OSError as error:
        return None, (), f"{error.filename}: {error.strerror}"
    name, states, why = None, dict[str, Managed](), None
    try:
        manager = manager_of(source.home)
        name = manager.name if manager else None
        states = dict(manager.states(instances)) if manager else {}
    except DataserverError as error:
        why = str(error)
    rows = overview(instances, states, source.now(), source.environment)
    return name, tuple(Local(row, _rejected(source, row.name)) for row in rows), why


def _rejected(source: Source, name: str) -> int | None:
    with suppress(OSError, DataserverError):
        return sum(Rejected(source.home.instance(name).rejected).counts().values())
    return None


def _standing(source: Source) -> Standing | None:
    """How this host of a pair does; None: it is none, or that cannot be told."""
    with suppress(OSError, DataserverError):
        path = source.home.root / "keepalived" / "pair.toml"
        if path.exists():
            return look(read_pair(path))
    return None


def _pair(standing: Standing) -> PairView:
    known = standing.known if standing.knows else None
    return PairView(
        host=standing.host.name,
        has_address=standing.has_address,
        state=known.state if known else None,
        since=known.since if known else None,
        problems=tuple(standing.problems()),
    )


def _hosts(source: Source, seen: list[ServerProcess], standing: Standing | None) -> list[HostView]:
    live = _GIVEN_UP * _keepalive(source)
    hosts = {
        host: tuple(_process(each, live) for each in group)
        for host, group in groupby(seen, key=lambda each: each.host)
    }
    return [
        HostView(host, processes, *takes_packets(host, hosts, standing))
        for host, processes in hosts.items()
    ]


def takes_packets(
    host: str, hosts: Mapping[str, tuple[Process, ...]], standing: Standing | None
) -> tuple[bool | None, str]:
    """Whether packets go to that host, and how that is known."""
    if standing is not None:
        here, twin = (_is_host(host, each.name) for each in _this_and_twin(standing))
        if here and standing.has_address:
            return True, "it has the pair's address"
        if here:
            return False, "it does not have the pair's address"
        if twin and standing.has_address:
            return False, f"{standing.host.name} has the pair's address"
    # What a process said last is no news of one that has fallen silent.
    rates = {
        name: sum(p.packets_per_second or 0 for p in of if p.state == ALIVE)
        for name, of in hosts.items()
    }
    if rates[host] > 0:
        return True, "packets have come in the last minute"
    if all(p.state != ALIVE for p in hosts[host]):
        return False, "no server is at work there"
    if any(rates.values()):
        return False, "no packet has come in the last minute"
    return None, "no host has had a packet in the last minute"


def _this_and_twin(standing: Standing) -> tuple[Host, Host]:
    first, second = standing.pair.hosts
    return (first, second) if standing.host == first else (second, first)


def _is_host(seen: str, name: str) -> bool:
    """Whether that name, with or without its domain, is the host's."""
    return seen.partition(".")[0].casefold() == name.partition(".")[0].casefold()


def _keepalive(source: Source) -> int:
    with suppress(DataserverError):
        settings = load_to_look(source.home.instance(source.instance), source.environment)
        return settings.server_keepalive
    return _KEEPALIVE


def _process(seen: ServerProcess, live: float) -> Process:
    state = STOPPED if seen.has_left else ALIVE if abs(seen.age) <= live else SILENT
    return Process(
        server_name=seen.server_name,
        instance=seen.instance,
        pid=seen.pid,
        version=seen.version,
        state=state,
        age=seen.age,
        queue=seen.queue,
        oldest_age=seen.oldest_age,
        packets_per_second=seen.packets_per_second,
        rejected=seen.rejected,
    )


# -- servers --


def servers_page(request: Request) -> Response:
    """All servers on the database, and the instances of this home."""
    return page(request, "servers.html", shown=servers(request.app.state.source))


def servers_json(request: Request) -> Response:
    """The same."""
    return reply(servers(request.app.state.source))


routes: list[BaseRoute] = [
    Route("/", servers_page, methods=["GET"]),
    Route("/api/servers", servers_json, methods=["GET"]),
]
