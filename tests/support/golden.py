"""Golden cases: packets, and what the Perl data server stored for them.

A case is a folder of ``tests/golden``: ``in/STEP/*.data`` and ``expected/TABLE.tsv``
(README.md there).  :func:`expected` gives a table's rows as we should have them: where
this server differs on purpose, the deviation is applied here, and nowhere else.
"""

from __future__ import annotations

import calendar
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, str | None]

ROOT = Path(__file__).parent.parent / "golden"

#: A cell that is the wall clock of the recorded run.
ANY = "*"

TABLES = (
    "agents",
    "modules",
    "values",
    "state",
    "counters",
    "addresses",
    "custom_fields",
    "inventory",
    "inventory_history",
    "events",
)

_NUMBER = re.compile(r"[._](\d+)\.data$")
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\", "\\0": "\0"}
_NEVER = "1970-01-01 00:00:00"
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Case:
    """One folder of packets and expected rows."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    def steps(self) -> list[list[Path]]:
        """The files of each step, both in the order in which they are to be taken in."""
        folders = sorted((self.folder / "in").iterdir())
        return [sorted(folder.iterdir(), key=number) for folder in folders]

    def modified(self, file: Path) -> int | None:
        """The modification time that ``file`` must have (epoch seconds), None if any will do."""
        return number(file) if self.name == "real" else None


def cases() -> list[Case]:
    """All cases that have expected rows."""
    return [
        Case(folder.name) for folder in sorted(ROOT.iterdir()) if (folder / "expected").is_dir()
    ]


def number(file: Path) -> int:
    """The number in a packet file's name."""
    match = _NUMBER.search(file.name)
    assert match, f"{file} has no number"
    return int(match[1])


def expected(case: Case, table: str) -> list[Row]:
    """The rows that ``table`` must have after the last step; a table without a file: none."""
    file = case.folder / "expected" / f"{table}.tsv"
    rows = read(file) if file.exists() else []
    if table == "state":
        rows = [_without_run_clock(row) for row in rows]
    return _deviate(case, table, rows)


def read(file: Path) -> list[Row]:
    """The rows as they were recorded."""
    # Not splitlines: values may hold characters that it takes for line ends.
    head, *lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    names = head.split("\t")
    return [dict(zip(names, map(_unescaped, line.split("\t")), strict=True)) for line in lines]


def _unescaped(cell: str) -> str | None:
    if cell == "NULL":
        return None
    return re.sub(r"\\[nt0\\]", lambda match: _ESCAPES[match[0]], cell)


def _without_run_clock(row: Row) -> Row:
    """A refused value sets ``last_execution_try`` to the clock; else it is the value's time."""
    accepted = row["last_execution_try"] == str(_epoch(row["timestamp"] or _NEVER))
    return row if accepted else {**row, "last_execution_try": ANY}


# -- where this server differs on purpose ---------------------------------------


def _deviate(case: Case, table: str, rows: list[Row]) -> list[Row]:
    if table == "agents":
        return [_recounted(case, row) for row in rows]
    if case.name == "real":
        return [_offset_once(row) if row["agent"] == "real-nolearn" else row for row in rows]
    if case.name == "number_formats":
        return list(_nan_and_inf_refused(table, rows))
    return rows


#: The counts of an agent by the status that they count.
_COUNTS = ("normal_count", "critical_count", "warning_count", "unknown_count", "notinit_count")


def _recounted(case: Case, row: Row) -> Row:
    """The Perl server counts an agent's modules one packet late; ours with each change."""
    disabled = {
        (module["agent"], module["module"])
        for module in expected(case, "modules")
        if module["disabled"] != "0"
    }
    counted = Counter(
        state["status"]
        for state in expected(case, "state")
        if state["agent"] == row["agent"] and (state["agent"], state["module"]) not in disabled
    )
    counts: Row = {name: str(counted[str(status)]) for status, name in enumerate(_COUNTS)}
    return {**row, **counts, "total_count": str(counted.total())}


def _offset_once(row: Row) -> Row:
    """The agent is two hours away, and the Perl server adds that twice to module times."""
    moved = dict(row)
    for name in ("utimestamp", "last_execution_try", "last_status_change"):
        if row.get(name) not in (None, ANY, "0"):
            moved[name] = str(int(row[name] or 0) - 2 * _HOUR)
    for name in ("timestamp", "last_try"):
        if row.get(name) not in (None, _NEVER):
            moved[name] = _text(_epoch(row[name] or _NEVER) - 2 * _HOUR)
    return moved


#: (module, time) of every ``nan`` and ``inf`` of the case: the Perl server stores 0 for them.
_NOT_NUMBERS = {
    ("n0", "1767225600"),
    ("n20", "1767225600"),
    ("n3", "1767225900"),
    ("n21", "1767225900"),
    ("n7", "1767226200"),
    ("n24", "1767226200"),
}

_NOT_INITIALISED = dict.fromkeys(
    ("status", "known_status", "last_status", "last_known_status"), "4"
)

#: The states of those modules whose last number was one of them, or in which it counted.
_STATES_BEFORE: dict[str, Row] = {
    "n0": {"last_status_change": "1767225900"},
    "n20": {"last_status_change": "1767226200", "status_changes": "0"},
    "n3": {
        "value": "",
        "timestamp": _NEVER,
        "last_try": _NEVER,
        "last_status_change": "0",
        **_NOT_INITIALISED,
    },
    "n7": {
        "value": "0.00000",
        "timestamp": "2026-01-01 00:05:00",
        "last_try": "2026-01-01 00:05:00",
    },
    "n24": {
        "value": "-0.00000",
        "timestamp": "2026-01-01 00:05:00",
        "last_try": "2026-01-01 00:05:00",
        "status_changes": "0",
    },
}


def _nan_and_inf_refused(table: str, rows: list[Row]) -> Iterable[Row]:
    for row in rows:
        if table == "values" and (row["module"], row["utimestamp"]) in _NOT_NUMBERS:
            continue
        before = _STATES_BEFORE.get(row.get("module") or "") if table == "state" else None
        refused = before is not None and "value" in before
        tried = {"last_execution_try": ANY} if refused else {}
        yield {**row, **(before or {}), **tried}


def _epoch(local: str) -> int:
    """The cases ran in UTC."""
    return calendar.timegm(time.strptime(local, "%Y-%m-%d %H:%M:%S"))


def _text(epoch: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch))
