"""Shows results: a table for people, JSON for machines, and on which machine it was."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench.measure import Result

_HEAD = (
    *("workload", "store", "packets/s", "values/s", "us/packet", "database's", "peak MB"),
    *("limit", "ratio"),
)

#: Columns of text, before the figures.
_LABELS = 2

_SYNCS = 20


def table(results: Iterable[Result]) -> str:
    """The table, without the trickles."""
    return columns([_HEAD, *(_row(result) for result in results if result.run.latency is None)])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table, the head among them, the first two columns flushed left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if place < _LABELS else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    usage = result.run.usage
    return (
        result.workload,
        result.store,
        f"{result.rate:,.0f}",
        f"{result.values / usage.seconds:,.0f}",
        each(usage.cpu, result.packets),
        each(result.run.database_cpu, result.packets),
        f"{usage.rss / 1e6:.0f}",
        f"{result.limit:,.0f}" if result.limit else "-",
        f"{result.ratio:.2f}" if result.ratio else "-",
    )


def each(seconds: float | None, packets: int) -> str:
    """Microseconds for each packet."""
    return "-" if seconds is None else f"{seconds / packets * 1e6:,.0f}"


def latency(result: Result) -> str | None:
    """One line for a trickle, None for the rest."""
    found = result.run.latency
    if found is None:
        return None
    return (
        f"{result.workload} on {result.store}: {result.rate:.0f} packets/s, completion to commit"
        f" {found.median * 1e3:.0f} ms (median), {found.p99 * 1e3:.0f} ms (99th percentile)"
    )


def machine(folder: Path) -> dict[str, object]:
    """What the figures depend on; ``fsync`` is the median of some, in seconds."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu": _cpu_model(),
        "sqlite": sqlite3.sqlite_version,
        "fsync": _fsync_seconds(folder),
    }


def machine_line(found: dict[str, object]) -> str:
    """The machine in one line."""
    return ", ".join(f"{key} {_short(value)}" for key, value in found.items())


def _short(value: object) -> str:
    return f"{value * 1e3:.2f} ms" if isinstance(value, float) else str(value)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fsync_seconds(folder: Path) -> float:
    def once() -> float:
        os.write(file.fileno(), bytes(4096))
        start = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - start

    with (folder / "fsync").open("wb") as file:
        return median(once() for _ in range(_SYNCS))


def as_json(results: Iterable[Result]) -> list[dict[str, object]]:
    """The results with all their figures, seconds and bytes."""
    return [{**asdict(r), "rate": r.rate, "ratio": r.ratio} for r in results]
