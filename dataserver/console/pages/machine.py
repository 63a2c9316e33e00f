"""For programs: whether the console works, and the metrics of all instances for Prometheus.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from dataserver.console.params import source_of
from dataserver.console.source import Source
from dataserver.errors import DataserverError
from dataserver.store.errors import translating
from dataserver.store.layout import reading

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
#: Bytes of an instance's metrics that are read: usually there are some 10 KB.
_LARGEST = 1 << 20


def healthz(request: Request) -> Response:
    """200 if the database can be read, else 503."""
    if _database_is_up(source_of(request)):
        return PlainTextResponse("ok\n")
    return PlainTextResponse("the database cannot be read\n", 503)


def metrics(request: Request) -> Response:
    """The metrics of all instances of the home, and the console's own."""
    source = source_of(request)
    up = int(_database_is_up(source))
    lines = [
        *merged(_texts(source)),
        *request.app.state.requests.lines(),
        "# HELP dataserver_console_database_up Whether this console can read the database.",
        "# TYPE dataserver_console_database_up gauge",
        f"dataserver_console_database_up {up}",
    ]
    return PlainTextResponse("\n".join(lines) + "\n", media_type=_PROMETHEUS)


def _texts(source: Source) -> Iterator[tuple[str, str]]:
    """The metrics that each instance last wrote; after its end the counters are still valid."""
    for name in source.home.instance_names():
        with suppress(OSError), source.home.instance(name).metrics.open("rb") as file:
            yield name, file.read(_LARGEST).decode("utf-8", "replace")


def _database_is_up(source: Source) -> bool:
    try:
        store = source.store()
        with source.watched(), translating("ask the database"), reading(store.engine) as conn:
            conn.exec_driver_sql("SELECT 1")
    except DataserverError:
        return False
    return True


# -- texts of several instances as one: each name described once, its samples together --

_NAME = r"[A-Za-z_:][A-Za-z0-9_:]*"
_LABEL = r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\\n]|\\.)*)"'
_ABOUT = re.compile(rf"# (HELP|TYPE) ({_NAME}) (.*)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)(?: -?[0-9]+)?")
_LABELS = re.compile(_LABEL)
#: The suffixes of samples of these types.
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def merged(texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines of several (instance, text), in order of first appearance.

    A sample without the label ``instance`` gets it; lines that are not samples, and repeated
    samples, are left out.
    """
    about: dict[str, dict[str, str]] = {}
    samples: dict[str, dict[str, str]] = {}
    for instance, text in texts:
        # Not splitlines(): a label may contain a character that it takes for a line end.
        for line in text.split("\n"):
            described = _ABOUT.fullmatch(line)
            if described:
                kind, name, words = described.groups()
                about.setdefault(name, {}).setdefault(kind, words)
                samples.setdefault(name, {})
                continue
            sample = _SAMPLE.fullmatch(line)
            if sample and _is_number(sample[5]):
                series = f"{sample[1]}{{{_labelled(sample[2] or '', instance)}}}"
                samples.setdefault(_family(sample[1], about), {}).setdefault(series, sample[5])
    for name, values in samples.items():
        yield from (f"# {kind} {name} {words}" for kind, words in about.get(name, {}).items())
        yield from (f"{series} {value}" for series, value in values.items())


def _labelled(labels: str, instance: str) -> str:
    found = _LABELS.findall(labels)
    if all(name != "instance" for name, _ in found):
        found.insert(0, ("instance", instance))
    return ",".join(f'{name}="{value}"' for name, value in found)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and "_" not in text


def _family(name: str, about: dict[str, dict[str, str]]) -> str:
    """The name under which a sample is described."""
    for kind, suffixes in _SUFFIXES.items():
        for suffix in suffixes:
            base = name.removesuffix(suffix)
            if base != name and about.get(base, {}).get("TYPE") == kind:
                return base
    return name


routes: list[BaseRoute] = [
    Route("/healthz", healthz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]
