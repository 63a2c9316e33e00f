"""Comparing expected rows with stored ones: what is missing, what is too much.

Rows have no order among themselves.  Numbers are compared as numbers, an ``extended_info``
as a set of tags.
"""

from __future__ import annotations

import contextlib
from collections import Counter

from tests.support.golden import ANY, Row


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Columns whose text is compared as it is, also when it looks like a number.
_TEXTS = _names(
    "agent module alias address group_name description os_version agent_version custom_id"
    " url_address server_name unit str_warning str_critical cron_interval data field ip"
    " critical_instructions warning_instructions unknown_instructions text timestamp last_try"
)


def differences(expected: list[Row], stored: list[Row], strings: set[str]) -> list[str]:
    """One line for each row that only one side has; none when they agree.

    ``strings``: names of the modules whose values are texts.
    """
    wanted, found = _with_same_anys(expected, stored)
    left = Counter(_key(row, strings) for row in wanted)
    right = Counter(_key(row, strings) for row in found)
    missing = [f"missing: {_shown(key)}" for key in sorted((left - right).elements(), key=str)]
    extra = [f"too much: {_shown(key)}" for key in sorted((right - left).elements(), key=str)]
    return missing + extra


def _with_same_anys(expected: list[Row], stored: list[Row]) -> tuple[list[Row], list[Row]]:
    """Put ANY into a stored row's cells where the expected row of that module has it."""
    marked = {
        (row.get("agent"), row.get("module")): {name for name, cell in row.items() if cell == ANY}
        for row in expected
    }
    found = []
    for row in stored:
        anys = marked.get((row.get("agent"), row.get("module")), set())
        found.append({name: ANY if name in anys else cell for name, cell in row.items()})
    return expected, found


Key = tuple[tuple[str, object], ...]


def _key(row: Row, strings: set[str]) -> Key:
    texts = _TEXTS | {"value"} if row.get("module") in strings else _TEXTS
    return tuple(sorted((name, _canonical(name, cell, texts)) for name, cell in row.items()))


def _canonical(name: str, cell: str | None, texts: frozenset[str]) -> object:
    if cell is None or cell == ANY:
        return cell
    if name == "extended_info":
        return "".join(sorted(cell.split("<br/>")))
    if name not in texts:
        with contextlib.suppress(ValueError):
            return f"{float(cell):.12g}"
    return cell


def _shown(key: Key) -> str:
    return " ".join(f"{name}={value!r}" for name, value in key)
