"""The counters and gauges of a running instance, and their Prometheus text.

Counters are plain attributes.  The one thread that owns them increments them and others read them:
a reader may see one of them updated a moment before another, but never a wrong value.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: Upper bounds of the commit histogram's buckets, in seconds.
COMMIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_NAMESPACE = "dataserver"


class Histogram:
    """The number of durations in each bucket, and the sum of all (seconds)."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = COMMIT_BUCKETS) -> None:
        self.bounds = bounds
        # One more than there are bounds, for durations above the last one.
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound with the number of durations not above it; the last bound is infinite."""
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            yield bound, running


def _count(meaning: str) -> int:
    value: int = field(default=0, metadata={"help": meaning})
    return value


def _counts(label: str, meaning: str) -> Counter[str]:
    value: Counter[str] = field(default_factory=Counter, metadata={"help": meaning, "label": label})
    return value


@dataclass(slots=True)
class Counters:
    """Everything counted since the process started."""

    packets: int = _count("Packets stored for the first time.")
    duplicates: int = _count("Packets that were stored before and only acknowledged.")
    late: int = _count("Packets older than their agent's newest one.")
    late_counters_dropped: int = _count(
        "Late readings of counters, from which no rate can be computed."
    )
    repaired: Counter[str] = _counts("repair", "Packets that had to be repaired to be parsed.")
    rejected: Counter[str] = _counts("reason", "Files rejected.")
    samples: int = _count("Values seen.")
    stored: int = _count("Values stored because they were new.")
    refused: int = _count("Values refused.")
    refused_by_reason: Counter[str] = _counts(
        "reason", "Parts of packets refused: values, modules, times and others."
    )
    ignored: int = _count("Packets of disabled agents, ignored.")
    undecided_patterns: int = _count(
        "Searches for thresholds abandoned after too many steps or too much time."
    )
    unstored: Counter[str] = _counts("section", "Elements of sections that are not stored.")
    agents_created: int = _count("Agents created.")
    modules_created: int = _count("Modules created.")
    bytes_read: int = _count("Bytes of packets read.")
    replaced: int = _count("Files replaced by a new upload while they were being stored.")
    retries: Counter[str] = _counts("error", "Transactions retried.")
    scans: int = _count("Scans of the drop directory.")
    doorbell_overflows: int = _count("Times the kernel dropped events of the drop directory.")
    commit_seconds: Histogram = field(
        default_factory=Histogram, metadata={"help": "Time from a transaction's begin to its end."}
    )
    lock_wait_seconds: Histogram = field(
        default_factory=Histogram,
        metadata={"help": "Time that writing transactions queued for each other (SQLite only)."},
    )


def _gauge(meaning: str) -> int:
    value: int = field(default=0, metadata={"help": meaning})
    return value


@dataclass(slots=True)
class Gauges:
    """The present state.  Counts are of files; ages in seconds; times are epoch seconds."""

    queue: int = _gauge("Packet files in the drop directory.")
    oldest_age_seconds: float = _gauge("Age of the oldest of them, by its modification time.")
    held: int = _gauge("Files held until their agent's packets have settled.")
    held_until_time_seconds: float = _gauge("When the last of them is due, or 0 if none is held.")
    waiting: int = _gauge("Files that are not complete yet.")
    failing: int = _gauge("Files that could not be stored and wait to be retried.")
    unreadable: int = _gauge("Files that could not be opened.")
    foreign: int = _gauge("Unexpected entries of the drop directory that are not packets.")
    rejected_files: int = _gauge("Files in rejected/.")
    rejected_bytes: int = _gauge("Bytes of the files in rejected/.")
    agents_ahead: int = _gauge(
        "Agents whose latest packet in the last hour was over 5 minutes ahead of this clock."
    )
    clock_behind: int = _gauge("1 if most agents are ahead: this server's clock seems behind.")
    alerts_not_evaluated: int = _gauge("Alerts defined in the console, which are not evaluated.")
    data_in_up: int = _gauge("1 if the drop directory could be scanned, 0 otherwise.")
    database_up: int = _gauge("1 if the last transaction went through, 0 while waiting.")
    last_commit_time_seconds: float = _gauge("When the last transaction was committed.")
    start_time_seconds: float = _gauge("When the process started.")


class Rates:
    """Packets and values per second over the last minute, from readings of the counters."""

    def __init__(self, window: float = 60.0) -> None:
        self._window = window
        self._readings: deque[tuple[float, int, int]] = deque()

    def update(self, now: float, counters: Counters) -> None:
        """Take a reading; ``now`` is a monotonic time in seconds."""
        self._readings.append((now, counters.packets, counters.samples))
        while len(self._readings) > 1 and self._readings[0][0] < now - self._window:
            self._readings.popleft()

    def per_second(self) -> tuple[float, float]:
        """Packets and values per second; zero before there are two readings."""
        if len(self._readings) < 2:
            return 0.0, 0.0
        then, packets_then, values_then = self._readings[0]
        now, packets, values = self._readings[-1]
        seconds = max(now - then, 1e-9)
        return (packets - packets_then) / seconds, (values - values_then) / seconds


def as_dict(record: Counters | Gauges) -> dict[str, Any]:
    """The counters or gauges as plain JSON values; a histogram as its count and sum."""
    return {each.name: _plain(getattr(record, each.name)) for each in fields(record)}


def _plain(value: object) -> object:
    if isinstance(value, Histogram):
        return {"count": value.count, "sum": round(value.total, 6)}
    return dict(value) if isinstance(value, Counter) else value


def prometheus(counters: Counters, gauges: Gauges, labels: Mapping[str, str]) -> str:
    """The text exposition format (version 0.0.4) of everything, each series with ``labels``."""
    lines: list[str] = []
    for each in fields(counters):
        value = getattr(counters, each.name)
        if isinstance(value, Histogram):
            lines += _histogram(each.name, each.metadata["help"], value, labels)
            continue
        name = f"{_NAMESPACE}_{each.name}_total"
        lines += _head(name, "counter", each.metadata["help"])
        lines += _samples(name, value, each.metadata, labels)
    for each in fields(gauges):
        name = f"{_NAMESPACE}_{each.name}"
        lines += _head(name, "gauge", each.metadata["help"])
        lines += _samples(name, getattr(gauges, each.name), each.metadata, labels)
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]


def _samples(
    name: str, value: object, metadata: Mapping[str, Any], labels: Mapping[str, str]
) -> Iterator[str]:
    if not isinstance(value, Counter):
        yield f"{name}{_labels(labels)} {value}"
        return
    # A copy: the owner may add a key while this is read.
    for key, count in sorted(dict(value).items()):
        yield f"{name}{_labels({**labels, metadata['label']: key})} {count}"


def _histogram(
    name: str, meaning: str, histogram: Histogram, labels: Mapping[str, str]
) -> Iterator[str]:
    name = f"{_NAMESPACE}_{name}"
    yield from _head(name, "histogram", meaning)
    running = 0
    for bound, running in histogram.cumulative():
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield f"{name}_bucket{_labels({**labels, 'le': text})} {running}"
    yield f"{name}_sum{_labels(labels)} {histogram.total:.6f}"
    yield f"{name}_count{_labels(labels)} {running}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items()) + "}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
