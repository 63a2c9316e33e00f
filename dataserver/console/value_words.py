"""Values, statuses and severities as people read them."""

from __future__ import annotations

from dataserver.rules.status import Status
from dataserver.rules.values import type_rule
from dataserver.store.read.modules import SHORT, ModuleRecord

#: Characters of a value that a page shows.
LONGEST = 300
_SEVERITIES = (
    "maintenance",
    "informational",
    "normal",
    "warning",
    "critical",
    "minor",
    "major",
)


def value_words(value: float | str, module: ModuleRecord) -> str:
    """A value with its unit, or whether it is up; long texts cut, and said to be."""
    if isinstance(value, str):
        more = " or more" if len(value) >= SHORT else ""
        cut = f"{value[:LONGEST]}… ({len(value)} characters{more})"
        return value if len(value) <= LONGEST else cut
    if type_rule(module.type or "").is_proc and value in {0.0, 1.0}:
        return "up" if value else "down"
    number = f"{value:,.7g}" if abs(value) < 1e7 else f"{value:,.15g}"
    return f"{number} {module.unit}".strip()


def status_words(status: Status | None) -> str:
    """A status; "no status" of a module that never had a value."""
    return "no status" if status is None else status.name.lower().replace("_", " ")


def severity_words(severity: int) -> str:
    """An event's severity."""
    return _SEVERITIES[severity] if 0 <= severity < len(_SEVERITIES) else str(severity)
