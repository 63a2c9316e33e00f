"""The page of servers and instances: their states, queues, and which host gets the packets."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dataserver.config.load import load_for_reading
from dataserver.console.html import page
from dataserver.console.params import source_of
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
from dataserver.store.servers import GIVEN_UP
from dataserver.vrrp.model import pair_file
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.status import HostStatus, look

#: The ``server_keepalive`` if this home's settings cannot be read.
_KEEPALIVE = 45
#: The states of a process.
ALIVE, SILENT, STOPPED = "alive", "silent", "stopped"


@dataclass(frozen=True, slots=True)
class Process:
    """A server process, according to its row in the database.

    ``state`` is "alive", "silent" or "stopped"; ``age`` is the age of the row in seconds,
    ``oldest_age`` that of its oldest packet.
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
    """A host with its processes.  ``takes_packets`` is None if unknown; ``why`` is the reason."""

    host: str
    processes: tuple[Process, ...]
    takes_packets: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Local:
    """An instance of this home; ``rejected`` counts packets, or is None if unreadable."""

    row: Row
    rejected: int | None


@dataclass(frozen=True, slots=True)
class PairView:
    """This host, ``host``, as part of its pair; ``since`` is epoch seconds."""

    host: str
    has_address: bool
    state: str | None
    since: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Servers:
    """The record of the page; ``database_error`` says why ``hosts`` is empty, or is None."""

    hosts: tuple[HostView, ...]
    database_error: str | None
    manager: str | None
    instances: tuple[Local, ...]
    home_error: str | None
    pair: PairView | None


def servers(source: Source) -> Servers:
    """Servers and instances; problems of one of them do not raise an error."""
    seen: list[ServerProcess] = []
    database_error = None
    try:
        store = source.store()
        with source.watched(), translating("read the servers"), reading(store.engine) as conn:
            seen = processes_seen(conn, store.layout)
    except DataserverError as error:
        database_error = str(error)
    manager, locals_, home_error = _instances(source)
    host_status = _host_status(source)
    return Servers(
        hosts=tuple(_hosts(source, seen, host_status)),
        database_error=database_error,
        manager=manager,
        instances=locals_,
        home_error=home_error,
        pair=None if host_status is None else _pair(host_status),
    )


def _instances(source: Source) -> tuple[str | None, tuple[Local, ...], str | None]:
    """The name of the home's manager, its instances, and why they could not be read."""
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


def _host_status(source: Source) -> HostStatus | None:
    """The status of this host of a pair, or None if it is not one, or unknown."""
    with suppress(OSError, DataserverError):
        path = pair_file(source.home)
        if path.exists():
            return look(read_pair(path))
    return None


def _pair(host_status: HostStatus) -> PairView:
    known = host_status.known if host_status.knows else None
    return PairView(
        host=host_status.host.name,
        has_address=host_status.has_address,
        state=known.state if known else None,
        since=known.since if known else None,
        problems=tuple(host_status.problems()),
    )


def _hosts(
    source: Source, seen: list[ServerProcess], host_status: HostStatus | None
) -> list[HostView]:
    live = GIVEN_UP * _keepalive(source)
    hosts = {
        host: tuple(_process(each, live) for each in group)
        for host, group in groupby(seen, key=lambda each: each.host)
    }
    return [
        HostView(host, processes, *takes_packets(host, hosts, host_status))
        for host, processes in hosts.items()
    ]


def takes_packets(
    host: str, hosts: Mapping[str, tuple[Process, ...]], host_status: HostStatus | None
) -> tuple[bool | None, str]:
    """Whether packets go to that host (None if unknown), and why."""
    if host_status is not None:
        here, twin = (
            _is_host(host, each.name)
            for each in (host_status.host, host_status.pair.twin(host_status.host))
        )
        if here and host_status.has_address:
            return True, "it has the pair's address"
        if here:
            return False, "it does not have the pair's address"
        if twin and host_status.has_address:
            return False, f"{host_status.host.name} has the pair's address"
    # The last figures of a silent process are out of date.
    rates = {
        name: sum(p.packets_per_second or 0 for p in of if p.state == ALIVE)
        for name, of in hosts.items()
    }
    if rates[host] > 0:
        return True, "packets have come in the last minute"
    if all(p.state != ALIVE for p in hosts[host]):
        return False, "no server runs there"
    if any(rates.values()):
        return False, "no packet has come in the last minute"
    return None, "no host has had a packet in the last minute"


def _is_host(seen: str, name: str) -> bool:
    """Whether two host names are the same, with or without a domain."""
    return seen.partition(".")[0].casefold() == name.partition(".")[0].casefold()


def _keepalive(source: Source) -> int:
    with suppress(DataserverError):
        settings = load_for_reading(source.home.instance(source.instance), source.environment)
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


# -- the page and its twin under /api/ --


def servers_page(request: Request) -> Response:
    """The HTML page."""
    return page(request, "servers.html", shown=servers(source_of(request)))


def servers_json(request: Request) -> Response:
    """The page's record as JSON."""
    return reply(servers(source_of(request)))


routes: list[BaseRoute] = [
    Route("/", servers_page, methods=["GET"]),
    Route("/api/servers", servers_json, methods=["GET"]),
]
