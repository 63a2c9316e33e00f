"""Values, statuses and severities as texts for pages."""

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
    """A value with its unit, or "up" or "down"; long texts are cut, with their length."""
    if isinstance(value, str):
        more = " or more" if len(value) >= SHORT else ""
        cut = f"{value[:LONGEST]}… ({len(value)} characters{more})"
        return value if len(value) <= LONGEST else cut
    if type_rule(module.type or "").is_proc and value in {0.0, 1.0}:
        return "up" if value else "down"
    number = f"{value:,.7g}" if abs(value) < 1e7 else f"{value:,.15g}"
    return f"{number} {module.unit}".strip()


def status_words(status: Status | None) -> str:
    """The text of a status; "no status" if the module never had a value."""
    return "no status" if status is None else status.name.lower().replace("_", " ")


def severity_words(severity: int) -> str:
    """The text of an event's severity."""
    return _SEVERITIES[severity] if 0 <= severity < len(_SEVERITIES) else str(severity)
