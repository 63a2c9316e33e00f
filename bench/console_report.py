"""The figures of the console's benchmark: records, tables, JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.console_load import Answer, latency, percentile
from bench.report import columns

#: Milliseconds that a page may take.
TARGET = 300
#: The part of the rate that consoles may cost.
COST = 0.10
_OK = 200


@dataclass(frozen=True, slots=True)
class Opened:
    """A page asked for again and again: ``seconds`` of each answer, ``size`` of one in bytes.

    ``part`` is what it was measured in.
    """

    part: str
    what: str
    store: str
    seconds: tuple[float, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Runs in pairs: packets a second of a server alone, and with consoles that are looked at.

    ``answers`` are those that the consoles gave meanwhile; ``retries`` and ``deadlocks`` came of
    all runs together.
    """

    store: str
    part: str
    pairs: tuple[tuple[float, float], ...]
    answers: tuple[Answer, ...]
    retries: int
    deadlocks: int

    @property
    def cost(self) -> float:
        """The part of the rate that the consoles cost: the median of the pairs."""
        return median(1 - loaded / alone for alone, loaded in self.pairs)

    @property
    def errors(self) -> int:
        """Requests that had no answer, or none that was good."""
        return sum(answer.code != _OK for answer in self.answers)

    @property
    def is_clean(self) -> bool:
        """No error and no conflict over locks."""
        return not (self.errors or self.retries or self.deadlocks)


Result = Opened | Loaded


def tables(results: Iterable[Result]) -> str:
    """Both tables, and what each kind of request took; empty ones left out."""
    found = list(results)
    pages = [each for each in found if isinstance(each, Opened)]
    loads = [each for each in found if isinstance(each, Loaded)]
    return "\n\n".join(filter(None, (_pages(pages), _loads(loads), _kinds(loads))))


def _pages(results: list[Opened]) -> str:
    if not results:
        return ""
    head = ("page", "store", "runs", "median ms", "p95 ms", "target ms", "kB")
    return columns([head, *(_page(result) for result in results)])


def _page(result: Opened) -> tuple[str, ...]:
    return (
        result.what,
        result.store,
        str(len(result.seconds)),
        _ms(median(result.seconds)),
        _ms(percentile(result.seconds, 95)),
        str(TARGET),
        f"{result.size / 1e3:.0f}",
    )


def _loads(results: list[Loaded]) -> str:
    if not results:
        return ""
    head = (
        *("store", "pairs", "alone/s", "with consoles/s", "cost", "target", "requests"),
        *("p50 ms", "p95 ms", "p99 ms", "errors", "retries", "deadlocks"),
    )
    return columns([head, *(_load(result) for result in results)])


def _load(result: Loaded) -> tuple[str, ...]:
    took = latency(result.answers)
    return (
        result.store,
        str(len(result.pairs)),
        f"{median(alone for alone, _ in result.pairs):,.0f}",
        f"{median(loaded for _, loaded in result.pairs):,.0f}",
        f"{result.cost:.1%}",
        f"< {COST:.0%}",
        f"{len(result.answers):,}",
        *map(_ms, (took.p50, took.p95, took.p99)),
        str(result.errors),
        str(result.retries),
        str(result.deadlocks),
    )


def _kinds(results: list[Loaded]) -> str:
    """What each kind of request took beside the server."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        kinds = Counter(answer.kind for answer in result.answers)
        for kind in sorted(kinds):
            took = latency(answer for answer in result.answers if answer.kind == kind)
            times = map(_ms, (took.p50, took.p95, took.p99))
            rows.append((kind, result.store, f"{kinds[kind]:,}", *times))
    if not rows:
        return ""
    return columns([("request", "store", "requests", "p50 ms", "p95 ms", "p99 ms"), *rows])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}"


def is_whole(results: Iterable[Result], stores: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether all was measured, and nobody got in anybody's way."""
    found = list(results)
    done = {(result.store, result.part) for result in found}
    is_clean = all(result.is_clean for result in found if isinstance(result, Loaded))
    return is_clean and done == {(store, part) for store in stores for part in parts}


def as_json(results: Iterable[Result]) -> list[dict[str, Any]]:
    """All figures, seconds and bytes; of the answers what they come to."""
    return [_json(result) for result in results]


def _json(result: Result) -> dict[str, Any]:
    if isinstance(result, Opened):
        return {
            "page": result.what,
            "store": result.store,
            "seconds": result.seconds,
            "size": result.size,
        }
    took = latency(result.answers)
    return {
        "load": result.store,
        "pairs": result.pairs,
        "cost": result.cost,
        "requests": len(result.answers),
        "latency": {"p50": took.p50, "p95": took.p95, "p99": took.p99},
        "codes": Counter(str(answer.code) for answer in result.answers),
        "retries": result.retries,
        "deadlocks": result.deadlocks,
    }
