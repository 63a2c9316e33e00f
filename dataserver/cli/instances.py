"""``dataserver instances``: creating, listing, starting, stopping and removing instances.

``start``, ``stop`` and ``restart`` are in :mod:`dataserver.cli.instances_control`, ``units`` in
:mod:`dataserver.cli.units`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app, print_error
from dataserver.cli.instances_control import (
    TIMEOUT,
    control_of,
    report_outcomes,
    restart,
    start,
    stop,
    timeout_option,
    wait_with_progress,
)
from dataserver.cli.output import Painted, local_time, print_json, print_line, print_table
from dataserver.cli.program import spelled
from dataserver.config.paths import MAIN, Home
from dataserver.errors import DataserverError, NotRunning, UsageError
from dataserver.fleet import removal
from dataserver.fleet.control import Control
from dataserver.fleet.managers import manager_of
from dataserver.fleet.model import Instance, log_file
from dataserver.fleet.overview import Condition, Row, overview
from dataserver.fleet.registry import Registry
from dataserver.fleet.removal import Leftovers
from dataserver.fleet.supervision.manager import BySupervisor
from dataserver.logs import terminal_line
from dataserver.rules.moments import duration_text

#: Commands that are loaded when they are used: the module, and the line of the help.
_LATER = {"units": ("dataserver.cli.units", "systemd's files for the instances.")}


class _Instances(Group):
    """The group; a placeholder stands for a command that is slow to load until it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order in which they were added."""
        return [*self.commands, *_LATER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None if the name is unknown."""
        if cmd_name in _LATER:
            return _Later(cmd_name, *_LATER[cmd_name])
        return super().get_command(ctx, cmd_name)


class _Later(click.Command):
    """The placeholder of the command of the same name in ``module``."""

    def __init__(self, name: str, module: str, about: str) -> None:
        super().__init__(name, short_help=about)
        self._module = module

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """Load the command and make its context."""
        command: click.Command = getattr(importlib.import_module(self._module), str(self.name))
        return command.make_context(info_name, args, parent, **extra)


@click.group(cls=_Instances)
def instances() -> None:
    """Virtual instances: separate servers on this machine that share a database.

    instances/NAME/ contains all that defines an instance, var/NAME/ what it writes while it
    runs. systemd or `dataserver up` runs the instances that are enabled.

    \b
    Examples:
      dataserver instances spawn beta
      dataserver instances list
      dataserver instances remove beta
    """


# -- creating --


@instances.command(cls=Command)
@click.argument("name")
@click.option(
    "--data-in",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="Its drop directory, created if missing (default: data_in in its folder).",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."
)
@timeout_option
@click.pass_context
@pass_app
def spawn(
    app: App,
    context: click.Context,
    name: str,
    data_in: Path | None,
    settings: Sequence[str],
    timeout: float,
) -> None:
    """Create an instance and start it.

    Its folder appears complete or not at all. A data_in that is another instance's, or lies
    inside or around one, is refused. If no supervisor runs this home, the instance is created,
    and `dataserver up` will run it. Exit code 7 if it does not start; its folder is kept.

    \b
    Examples:
      dataserver instances spawn beta
      dataserver instances spawn beta --data-in /srv/beta --set settle=0 --set log_level=debug
    """
    registry = Registry(app.home)
    made = registry.create(name, data_in, _values(settings))
    control = control_of(app)
    [row] = control.rows([made])
    print_line(f"{name}: created; agents drop packets into {row.data_in}")
    if control.manager is None:
        print_line(spelled("not running: start it with `dataserver up`"))
        return
    context.exit(report_outcomes(control, [control.start(made)], timeout))


def _values(settings: Sequence[str]) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} has no value", hint="use --set KEY=VALUE")
        if key in values:
            raise UsageError(f"--set {key} is given twice")
        values[key] = value
    return values


# -- listing --

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


@instances.command(cls=Command, name="list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List the instances: whether each runs, and how many packets are queued.

    QUEUE counts the packets in DATA_IN, complete or not; RATE is over the last minute. "By hand":
    started neither by systemd nor by `dataserver up`. The database is not used.

    With --json: "manager" ("systemd", "dataserver up", or null if neither runs this home) and
    "instances", each with name, state, detail (why), enabled, supervised, pid, since, queue,
    queue_more (there are more than were counted), oldest, held (files that wait until their agent's
    backlog has settled), held_until, packets_per_second, restarts, data_in, phase, database_error.
    Times are epoch seconds; null means unknown.

    \b
    Examples:
      dataserver instances list
      dataserver instances list --json
    """
    registry = Registry(app.home)
    try:
        instances = registry.instances()
    except FileNotFoundError:
        app.home.existing()  # raises: it names what is missing
        raise
    manager, managed = None, {}
    try:
        manager = manager_of(app.home)
        managed = manager.states(instances) if manager else {}
    except DataserverError as error:
        # The list is useful without the manager's answer.
        print_error(error)
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
        print_line(spelled("nothing runs this home: start it with `dataserver up`"))


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


for _command in (start, stop, restart):
    instances.add_command(_command)


# -- removing --


@instances.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--force", is_flag=True, help="Remove even if packets are queued or rejected; they are deleted."
)
@click.option("--yes", is_flag=True, help="With --force: do not ask for confirmation.")
@click.pass_context
@pass_app
def remove(app: App, context: click.Context, names: Sequence[str], force: bool, yes: bool) -> None:
    """Stop instances and remove instances/NAME and var/NAME.

    An instance with queued or rejected packets is removed only with --force, which lists what
    will be lost and asks. A data_in elsewhere is removed only if it is empty. The database is
    not changed.

    \b
    Examples:
      dataserver instances remove beta
      dataserver instances remove beta gamma --force --yes
    """
    control = control_of(app)
    code = 0
    for name in dict.fromkeys(names):
        try:
            _remove(control, name, force, yes)
        except DataserverError as error:
            print_error(error)
            code = max(code, error.exit_code)
    context.exit(code)


def _remove(control: Control, name: str, force: bool, yes: bool) -> None:
    instance = control.registry.get(name)
    removal.check_removable(instance.paths)
    found = _leftovers(instance)
    if found and not force:
        raise removal.refusal(name, found)
    if found and not _confirmed(name, found, yes):
        print_line(f"{name}: kept")
        return
    _stop(control, instance)
    try:
        kept = control.registry.remove(name, force=force)
    except DataserverError:
        # A packet came at the last moment, say: start the instance again if it still exists.
        if instance.enabled and control.manager is not None and instance.paths.config.exists():
            control.manager.start(instance)
        raise
    print_line(f"{name}: removed")
    for line in kept:
        print_line(f"{name}: {line}")


def _leftovers(instance: Instance) -> Leftovers:
    try:
        return removal.leftovers(instance.paths)
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} is not removed: its packets cannot be counted: "
            f"{exc.filename}: {exc.strerror}"
        ) from exc


def _confirmed(name: str, found: Leftovers, yes: bool) -> bool:
    """Whether the user accepts the loss of ``found``."""
    if yes:
        print_line(f"{name}: lost: {found}")
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            f"{name} is not removed, this would be lost: {found}", hint="confirm with --yes"
        )
    return click.confirm(f"{name}: lost for good: {found}. Remove it?", err=True)


def _stop(control: Control, instance: Instance) -> None:
    request = control.stop(instance)
    [outcome] = wait_with_progress(control, [request], TIMEOUT)
    if outcome.row is None:
        raise UsageError(f"{instance.name} no longer exists: another command removed it")
    if not outcome.reached:
        raise NotRunning(f"{instance.name} is not removed: it does not stop")


# -- logs --


@instances.command(cls=Command)
@click.argument("name", default=MAIN, metavar="[NAME]")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new lines, until Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Number of lines to show.",
)
@pass_app
def logs(app: App, name: str, follow: bool, lines: int) -> None:
    """Show the last log lines of an instance (default: main).

    They come from systemd's journal, or from the log that `dataserver up` writes. On a terminal
    each message is one short line; elsewhere lines are copied unchanged, one JSON object each.

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
            click.echo(terminal_line(line))


def _lines(home: Home, instance: Instance, lines: int, follow: bool) -> Iterator[str]:
    manager = manager_of(home)
    if manager is None:
        path = log_file(instance.paths)
        if not path.exists() and not follow:
            raise UsageError(
                f"{instance.name} has no log: nothing runs this home, and {path} does not exist",
                hint="`dataserver run` logs to the terminal where it was started",
            )
        manager = BySupervisor(home)
    return manager.follow(instance, lines, follow=follow)
