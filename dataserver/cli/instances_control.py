"""``dataserver instances start``, ``stop`` and ``restart``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import click

from dataserver.cli.base import App, Command, complain, pass_app
from dataserver.cli.output import print_line
from dataserver.errors import DataserverError, NotRunning, UsageError
from dataserver.fleet.control import Control, Outcome, Request, Target
from dataserver.fleet.managers import manager_of
from dataserver.fleet.model import Instance
from dataserver.fleet.overview import Condition, Row
from dataserver.fleet.registry import Registry

#: Seconds to wait for an instance: more than one takes to end its batch on a slow database.
TIMEOUT = 60.0
_ERASE = "\r\x1b[2K"

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Wait for it so long.",
)
_names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")
_all_option = click.option("--all", "every", is_flag=True, help="All of them.")
_no_wait_option = click.option("--no-wait", is_flag=True, help="Ask for it and leave.")


@click.command(cls=Command)
@_names_argument
@_all_option
@_no_wait_option
@timeout_option
@click.pass_context
@pass_app
def start(
    app: App,
    context: click.Context,
    names: Sequence[str],
    every: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    """Have instances run, now and after a restart of the machine.

    One that failed is tried anew. Exit code 7 if one does not run in the end.

    \b
    Examples:
      dataserver instances start beta
      dataserver instances start --all
    """
    control = control_of(app)
    chosen = _chosen(control.registry, names, every)
    context.exit(_each(control, chosen, control.start, None if no_wait else timeout))


@click.command(cls=Command)
@_names_argument
@_all_option
@_no_wait_option
@timeout_option
@click.pass_context
@pass_app
def stop(
    app: App,
    context: click.Context,
    names: Sequence[str],
    every: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    """Have instances not run until they are started again.

    Each finishes the batch under way; what comes later waits in its data_in. Also ends one that
    was started by `dataserver run`. Exit code 7 if one still runs in the end.

    \b
    Examples:
      dataserver instances stop beta
      dataserver instances stop --all
    """
    control = control_of(app)
    chosen = _chosen(control.registry, names, every)
    context.exit(_each(control, chosen, control.stop, None if no_wait else timeout))


@click.command(cls=Command)
@_names_argument
@click.option("--all", "every", is_flag=True, help="All that are enabled.")
@_no_wait_option
@timeout_option
@click.pass_context
@pass_app
def restart(
    app: App,
    context: click.Context,
    names: Sequence[str],
    every: bool,
    no_wait: bool,
    timeout: float,
) -> None:
    """Have instances end in good order and start again; start those that do not run.

    A changed configuration is read without it. Exit code 7 if one does not run in the end.

    \b
    Examples:
      dataserver instances restart beta
    """
    control = control_of(app)
    chosen = _chosen(control.registry, names, every)
    if every:
        chosen = [instance for instance in chosen if instance.enabled]
    context.exit(_each(control, chosen, control.restart, None if no_wait else timeout))


def control_of(app: App) -> Control:
    """The instances of the home and whoever runs them."""
    return Control(Registry(app.home), manager_of(app.home), os.environ)


def said(control: Control, goals: Sequence[Request], timeout: float) -> int:
    """Wait for all and say, a line each, what became of them; the exit code."""
    code = 0
    for outcome in waited(control, goals, timeout):
        if outcome.reached:
            print_line(_reached(outcome))
        else:
            complain(_missed(outcome))
            code = NotRunning.exit_code
    return code


def waited(control: Control, goals: Sequence[Request], timeout: float) -> Iterator[Outcome]:
    """What becomes of each, as it becomes known; a terminal shows who is waited for."""
    try:
        for outcome in control.wait(goals, timeout, _show_progress):
            _hide_progress()
            yield outcome
    finally:
        _hide_progress()


def _each(
    control: Control,
    instances: Sequence[Instance],
    ask: Callable[[Instance], Request],
    timeout: float | None,
) -> int:
    """Ask all, then wait for all; one that cannot be asked holds up nobody."""
    code, goals = 0, []
    for instance in instances:
        try:
            goals.append(ask(instance))
        except DataserverError as error:
            complain(error)
            code = max(code, error.exit_code)
    if timeout is None:
        for goal in goals:
            print_line(f"{goal.name}: asked to be {goal.aim.value}")
        return code
    return max(code, said(control, goals, timeout))


def _chosen(registry: Registry, names: Sequence[str], every: bool) -> list[Instance]:
    if bool(names) is every:
        raise UsageError("name instances, or say --all" + ", not both" * every)
    if not every:
        return [registry.get(name) for name in dict.fromkeys(names)]
    try:
        return registry.instances()
    except FileNotFoundError:
        registry.home.existing()  # says what is missing
        raise


def _reached(outcome: Outcome) -> str:
    row = outcome.row
    assert row is not None
    if outcome.goal.aim is Target.DOWN:
        return f"{row.name}: stopped"
    parts = [f"{row.name}: {row.state}", f"process {row.pid}" if row.pid else ""]
    if row.supervised is False:
        parts.append("started by hand, nobody supervises it")
    if row.state is Condition.WAITING_FOR_DATABASE and row.detail:
        parts.append(row.detail)
    return ", ".join(part for part in parts if part)


def _missed(outcome: Outcome) -> NotRunning:
    name, row = outcome.goal.name, outcome.row
    if row is None:
        return NotRunning(f"{name} is gone: somebody has removed it")
    if outcome.goal.aim is Target.DOWN:
        who = f", process {row.pid}" if row.pid else ""
        return NotRunning(f"{name} is not stopped yet: {_state(row)}{who}")
    return NotRunning(
        f"{name} does not run: {_state(row)}",
        hint=f"see `dataserver instances logs {name}`",
    )


def _state(row: Row) -> str:
    return f"{row.state} ({row.detail})" if row.detail else str(row.state)


def _show_progress(goals: Sequence[Request]) -> None:
    if not sys.stderr.isatty():
        return
    names = ", ".join(goal.name for goal in goals[:3])
    more = f" and {len(goals) - 3} more" if len(goals) > 3 else ""
    click.echo(f"{_ERASE}waiting for {names}{more} ...", err=True, nl=False)


def _hide_progress() -> None:
    if sys.stderr.isatty():
        click.echo(_ERASE, err=True, nl=False)
