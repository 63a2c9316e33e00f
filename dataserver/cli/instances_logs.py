"""``dataserver instances logs``: what an instance said."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from dataserver.cli.base import App, Command, pass_app
from dataserver.errors import UsageError
from dataserver.fleet.managers import manager_of
from dataserver.fleet.model import Instance, log_file
from dataserver.fleet.registry import Registry
from dataserver.fleet.supervision.manager import BySupervisor
from dataserver.home import MAIN, Home
from dataserver.logs import retold


@click.command(cls=Command)
@click.argument("name", default=MAIN, metavar="[NAME]")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="So many of the last lines.",
)
@pass_app
def logs(app: App, name: str, follow: bool, lines: int) -> None:
    """Show what an instance (default: main) said last.

    From systemd's journal, or the log that `dataserver up` keeps. On a terminal each message is
    one short line; elsewhere it comes as it was written, one JSON object a line.

    \b
    Examples:
      dataserver instances logs beta --follow
      dataserver instances logs beta --lines 1000 | grep error
    """
    instance = Registry(app.home).get(name)
    raw = not sys.stdout.isatty()
    for line in _lines(app.home, instance, lines, follow):
        if raw:
            sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")
            sys.stdout.buffer.flush()
        else:
            click.echo(retold(line))


def _lines(home: Home, instance: Instance, lines: int, follow: bool) -> Iterator[str]:
    manager = manager_of(home)
    if manager is None:
        path = log_file(instance.paths)
        if not path.exists() and not follow:
            raise UsageError(
                f"{instance.name} has no log: nothing runs this home, and {path} is not there",
                hint="`dataserver run` says what it has to say where it was started",
            )
        manager = BySupervisor(home)
    return manager.follow(instance, lines, follow=follow)
