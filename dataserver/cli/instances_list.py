"""``dataserver instances list``: all instances of a home, and how each does."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import Any

import click

from dataserver.cli.base import App, Command, complain, json_option, pass_app
from dataserver.cli.output import Painted, local_time, print_json, print_line, print_table
from dataserver.cli.program import spelled
from dataserver.errors import DataserverError
from dataserver.fleet.managers import manager_of
from dataserver.fleet.overview import Condition, Row, overview
from dataserver.fleet.registry import Registry
from dataserver.moments import duration_text

_HEAD = ("NAME", "STATE", "PID", "SINCE", "QUEUE", "OLDEST", "RATE", "RESTARTS", "DATA_IN")
_COLOURS = {
    Condition.RUNNING: "green",
    Condition.STARTING: "cyan",
    Condition.STOPPING: "cyan",
    Condition.WAITING_FOR_DATABASE: "yellow",
    Condition.WAITING_TO_RESTART: "yellow",
    Condition.UNKNOWN: "magenta",
    Condition.STUCK: "red",
    Condition.FAILED: "red",
    Condition.BROKEN: "red",
    Condition.DEAD: "red",
}


@click.command(cls=Command, name="list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the instances: whether each runs, and what waits for it.

    QUEUE counts packets in DATA_IN, complete or not; RATE is over the last minute. "By hand"
    is one that whoever runs this home has not started. Nothing is asked of the database.

    With --json: "manager" ("systemd", "dataserver up", or null where nobody runs this home) and
    "instances", each with name, state, detail (why), enabled, supervised, pid, since, queue,
    queue_more (more are there than were counted), oldest, held (files that wait until their agent's
    backlog has settled), held_until, packets_per_second, restarts, data_in, phase, database_error.
    Times are seconds since 1970; null is what is not known.

    \b
    Examples:
      dataserver instances list
      dataserver instances list --json
    """
    registry = Registry(app.home)
    try:
        instances = registry.instances()
    except FileNotFoundError:
        app.home.existing()  # says what is missing
        raise
    manager, managed = None, {}
    try:
        manager = manager_of(app.home)
        managed = manager.states(instances) if manager else {}
    except DataserverError as error:
        # Without what it says the rest is still worth seeing.
        complain(error)
    now = time.time()
    rows = overview(instances, managed, now, os.environ)
    name = manager.name if manager else None
    if as_json:
        print_json({"manager": name, "instances": [asdict(row) for row in rows]})
        return
    print_table(_HEAD, [_cells(row, now) for row in rows])
    for row in rows:
        if row.detail:
            print_line(f"{row.name}: {spelled(row.detail)}")
    if name is None:
        print_line(spelled("nothing runs this home: `dataserver up` does"))


def _cells(row: Row, now: float) -> tuple[Any, ...]:
    by_hand = " (by hand)" if row.supervised is False else ""
    queue = "-" if row.queue is None else f"{row.queue}{'+' * row.queue_more}"
    rate = row.packets_per_second
    return (
        row.name,
        Painted(f"{row.state}{by_hand}", _COLOURS.get(row.state)),
        row.pid or "-",
        "-" if row.since is None else local_time(row.since),
        queue,
        "-" if row.oldest is None else duration_text(now - row.oldest),
        "-" if rate is None else f"{rate:.1f}/s",
        "-" if row.restarts is None else row.restarts,
        row.data_in or "-",
    )
