"""``dataserver instances start``, ``stop`` and ``restart``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence

import click

from dataserver.cli.base import App, Command, pass_app, print_error
from dataserver.cli.output import print_line
from dataserver.errors import DataserverError, NotRunning, UsageError
from dataserver.fleet.control import Control, Outcome, Request, Target
from dataserver.fleet.managers import manager_of
from dataserver.fleet.model import Instance
from dataserver.fleet.overview import Condition, Row
from dataserver.fleet.registry import Registry

#: Seconds to wait for an instance: more than it needs to finish its batch on a slow database.
TIMEOUT = 60.0
_ERASE = "\r\x1b[2K"

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Maximum time to wait.",
)
_names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")
_all_option = click.option("--all", "every", is_flag=True, help="All instances.")
_no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return immediately without waiting."
)


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
    """Start instances, now and after each boot.

    A failed instance is started again. Exit code 7 if one of them does not run in the end.

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
    """Stop instances until they are started again.

    Each finishes its current batch; packets that come later wait in its data_in. Instances that
    were started by `dataserver run` are stopped too. Exit code 7 if one still runs in the end.

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
@click.option("--all", "every", is_flag=True, help="All enabled instances.")
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
    """Restart instances gracefully; start those that do not run.

    A changed configuration does not need it. Exit code 7 if one does not run in the end.

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
    """Control over the instances of the home."""
    return Control(Registry(app.home), manager_of(app.home), os.environ)


def report_outcomes(control: Control, requests: Sequence[Request], timeout: float) -> int:
    """Wait for all requests and print the outcome of each on a line; returns the exit code."""
    code = 0
    for outcome in wait_with_progress(control, requests, timeout):
        if outcome.reached:
            print_line(_reached(outcome))
        else:
            print_error(_missed(outcome))
            code = NotRunning.exit_code
    return code


def wait_with_progress(
    control: Control, requests: Sequence[Request], timeout: float
) -> Iterator[Outcome]:
    """The outcome of each request as it becomes known; a terminal shows the pending ones."""
    try:
        for outcome in control.wait(requests, timeout, _show_progress):
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
    """Make a request for each instance, then wait for all; an error does not stop the others."""
    code, requests = 0, []
    for instance in instances:
        try:
            requests.append(ask(instance))
        except DataserverError as error:
            print_error(error)
            code = max(code, error.exit_code)
    if timeout is None:
        for request in requests:
            print_line(f"{request.name}: asked to be {request.target.value}")
        return code
    return max(code, report_outcomes(control, requests, timeout))


def _chosen(registry: Registry, names: Sequence[str], every: bool) -> list[Instance]:
    if bool(names) is every:
        raise UsageError("name instances, or use --all" + ", not both" * every)
    if not every:
        return [registry.get(name) for name in dict.fromkeys(names)]
    try:
        return registry.instances()
    except FileNotFoundError:
        registry.home.existing()  # raises: it names what is missing
        raise


def _reached(outcome: Outcome) -> str:
    row = outcome.row
    assert row is not None
    if outcome.request.target is Target.DOWN:
        return f"{row.name}: stopped"
    parts = [f"{row.name}: {row.state}", f"process {row.pid}" if row.pid else ""]
    if row.supervised is False:
        parts.append("started by hand, not supervised")
    if row.state is Condition.WAITING_FOR_DATABASE and row.detail:
        parts.append(row.detail)
    return ", ".join(part for part in parts if part)


def _missed(outcome: Outcome) -> NotRunning:
    name, row = outcome.request.name, outcome.row
    if row is None:
        return NotRunning(f"{name} no longer exists: another command removed it")
    if outcome.request.target is Target.DOWN:
        who = f", process {row.pid}" if row.pid else ""
        return NotRunning(f"{name} is not stopped yet: {_state(row)}{who}")
    return NotRunning(
        f"{name} does not run: {_state(row)}",
        hint=f"see `dataserver instances logs {name}`",
    )


def _state(row: Row) -> str:
    return f"{row.state} ({row.detail})" if row.detail else str(row.state)


def _show_progress(requests: Sequence[Request]) -> None:
    if not sys.stderr.isatty():
        return
    names = ", ".join(request.name for request in requests[:3])
    more = f" and {len(requests) - 3} more" if len(requests) > 3 else ""
    click.echo(f"{_ERASE}waiting for {names}{more} ...", err=True, nl=False)


def _hide_progress() -> None:
    if sys.stderr.isatty():
        click.echo(_ERASE, err=True, nl=False)
