"""Between a module's rows and its status: the columns of its rules and of its standing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import tzinfo
from functools import lru_cache
from typing import Any

from dataserver.rules import entities, status
from dataserver.rules.patterns import MAX_PATTERN
from dataserver.rules.status import FRESH, Rules, Standing, status_of
from dataserver.rules.times import local_text
from dataserver.store import schema
from dataserver.store.layout import Layout
from dataserver.store.sql import Row

_FLOATS = ("min_critical", "max_critical", "min_warning", "max_warning")
_TEXTS = ("str_critical", "str_warning")
_FLAGS = (
    "critical_inverse",
    "warning_inverse",
    "percentage_critical",
    "percentage_warning",
    "each_ff",
)
_INTEGERS = (
    "warning_time",
    "min_ff_event",
    "min_ff_event_normal",
    "min_ff_event_critical",
    "min_ff_event_warning",
    "ff_type",
    "ff_timeout",
    "module_ff_interval",
)
#: The highest limit: half of the maximum of a count's column.
_MOST = 2**31 - 1
#: The columns of a module with the rules by which its values are judged.
RULE_KEYS = (*_FLOATS, *_TEXTS, *_FLAGS, *_INTEGERS)
_TEXTS_AT = slice(len(_FLOATS), len(_FLOATS) + len(_TEXTS))
#: A module without any of these tags has no rules of its own.
RULE_TAGS = frozenset(RULE_KEYS)

#: The columns of a state, in the order of the fields of a Standing.
STANDING_KEYS = (
    "status",
    "known_status",
    "last_status",
    "last_known_status",
    "status_changes",
    "ff_start_utimestamp",
    "ff_normal",
    "ff_warning",
    "ff_critical",
    "last_status_change",
    "warning_count",
)


def column_text(zone: tzinfo) -> Callable[[int], str]:
    """A function from epoch seconds to the text of a state's local time; 0 means never."""
    return lambda time: local_text(time, zone) if time else schema.NEVER


def rules_of(row: Mapping[str, Any]) -> Rules:
    """The rules of a new module, from its columns by key."""
    return rules_from(tuple(row.get(key) or None for key in RULE_KEYS))


def rules_from(values: tuple[Any, ...]) -> Rules:
    """The rules from the columns :data:`RULE_KEYS`; values of missing columns are None."""
    texts = values[_TEXTS_AT]
    if any(texts) and max(len(text or "") for text in texts) > MAX_PATTERN:
        # Too long for a pattern, and up to 64 KB that would be cached.
        kept = (text if len(text or "") <= MAX_PATTERN else None for text in texts)
        values = (*values[: _TEXTS_AT.start], *kept, *values[_TEXTS_AT.stop :])
    return _rules_from(values)


@lru_cache(maxsize=4_096)
def _rules_from(values: tuple[Any, ...]) -> Rules:
    named = dict(zip(RULE_KEYS, values, strict=True))
    return status.rules(
        **{key: float(named[key] or 0) for key in _FLOATS},
        # The console stores texts with entities, those of packets are stored as they are.
        **{key: entities.decode(named[key] or "") for key in _TEXTS},
        **{key: bool(named[key]) for key in _FLAGS},
        # Counts stop at these limits, so that none exceeds its column.
        **{key: min(int(named[key] or 0), _MOST) for key in _INTEGERS},
    )


@lru_cache(maxsize=4_096)
def standing_from(values: tuple[Any, ...]) -> Standing:
    """The standing from the columns :data:`STANDING_KEYS`; an agent's are mostly equal."""
    if values[0] is None:
        return FRESH
    return Standing(*map(status_of, values[:4]), *(int(value or 0) for value in values[4:]))


class StandingColumns:
    """The columns of a standing that a database has."""

    def __init__(self, layout: Layout) -> None:
        self._here = [
            place for place, key in enumerate(STANDING_KEYS) if layout.has(schema.state.c[key])
        ]
        self.keys = tuple(STANDING_KEYS[place] for place in self._here)
        self.has_changes = "status_changes" in self.keys
        #: The fields of a standing for :attr:`keys`, as plain integers.
        self.row: Callable[[Standing], Row] = lru_cache(maxsize=1_024)(self._row)

    def _row(self, standing: Standing) -> Row:
        return tuple(int(standing[place]) for place in self._here)
