"""``dataserver modules``: an agent's modules with their newest values and statuses."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import tzinfo
from typing import Any

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import (
    Painted,
    marks,
    number_text,
    painted,
    print_json,
    print_line,
    print_table,
    shortened,
    status_option,
    status_word,
    time_text,
)
from dataserver.cli.store import instance_option, reading_store
from dataserver.rules.moments import age_text
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.read.agents import find_agent
from dataserver.store.read.modules import ModuleRecord
from dataserver.store.read.modules import modules as list_modules

_HEAD = "MODULE TYPE STATUS SINCE VALUE UNIT TIME SAVED INTERVAL MARKS DESCRIPTION"


@click.command(cls=Command)
@click.argument("agent", metavar="AGENT")
@status_option
@instance_option
@json_option
@pass_app
def modules(
    app: App, agent: str, statuses: frozenset[str] | None, instance: str, as_json: bool
) -> None:
    """List the modules of AGENT (its name or alias), each with its status and newest value.

    STATUS "normal, critical pending": newer values are critical, but the module's flip-flop
    threshold requires more of them. SINCE is when the status changed. TIME is the time of the
    newest value, SAVED that of the newest stored one: a value that does not change is stored
    only once a day. MARKS are disabled and quiet, as set in the console. In JSON times are epoch
    seconds, or null for never, and values are complete.

    \b
    Examples:
      dataserver modules web1
      dataserver modules web1 --status critical,warning
      dataserver modules web1 --json
    """
    with (
        reading_store(app, instance) as store,
        translating("list modules"),
        reading(store.engine) as conn,
    ):
        meant = find_agent(conn, agent)
        found = [
            module
            for module in list_modules(conn, store.layout, store.zone, meant.id)
            if statuses is None or status_word(module.status) in statuses
        ]
    if as_json:
        print_json({"agent": meant.name, "modules": [_module_json(module) for module in found]})
    elif found:
        now = time.time()
        print_table(_HEAD.split(), [_module_row(module, store.zone, now) for module in found])
    else:
        print_line("none")


def _module_json(module: ModuleRecord) -> dict[str, Any]:
    words = {key: status_word(getattr(module, key)) for key in ("status", "pending")}
    return {**asdict(module), **words}


def _module_row(module: ModuleRecord, zone: tzinfo, now: float) -> tuple[object, ...]:
    value = module.value
    return (
        module.name,
        module.type or "-",
        _status_cell(module),
        _since_text(module.since, zone, now),
        shortened(value) if isinstance(value, str) else number_text(value),
        module.unit or "-",
        time_text(module.time, zone),
        time_text(module.saved, zone),
        module.interval,
        marks(disabled=module.disabled, quiet=module.quiet),
        shortened(module.description),
    )


def _status_cell(module: ModuleRecord) -> Painted:
    word = status_word(module.status) or "-"
    pending = status_word(module.pending)
    return painted(f"{word}, {pending} pending" if pending else word, word)


def _since_text(since: int | None, zone: tzinfo, now: float) -> str:
    text = time_text(since, zone)
    return text if since is None else f"{text} ({age_text(now - since)})"
