"""``dataserver instances remove``: instances go, packets do not, unless that is said."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from dataserver.cli.base import App, Command, complain, pass_app
from dataserver.cli.instances_control import TIMEOUT, control_of, waited
from dataserver.cli.output import print_line
from dataserver.errors import DataserverError, NotRunning, UsageError
from dataserver.fleet import removal
from dataserver.fleet.control import Control
from dataserver.fleet.model import Instance
from dataserver.fleet.removal import Remains


@click.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--force", is_flag=True, help="Also with packets, which are lost.")
@click.option("--yes", is_flag=True, help="With --force: do not ask.")
@click.pass_context
@pass_app
def remove(app: App, context: click.Context, names: Sequence[str], force: bool, yes: bool) -> None:
    """Stop instances and remove them: instances/NAME and var/NAME.

    Refused while packets are queued or rejected, unless --force, which says what is lost and
    asks. A data_in elsewhere goes only if it is empty. What is in the database stays.

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
            complain(error)
            code = max(code, error.exit_code)
    context.exit(code)


def _remove(control: Control, name: str, force: bool, yes: bool) -> None:
    instance = control.registry.get(name)
    removal.check_removable(instance.paths)
    found = _remains(instance)
    if found and not force:
        raise removal.refusal(name, found)
    if found and not _confirmed(name, found, yes):
        print_line(f"{name}: kept")
        return
    _stop(control, instance)
    try:
        stays = control.registry.remove(name, force=force)
    except DataserverError:
        # Something came at the last moment: as it was before, unless it is gone.
        if instance.enabled and control.manager is not None and instance.paths.config.exists():
            control.manager.start(instance)
        raise
    print_line(f"{name}: removed")
    for line in stays:
        print_line(f"{name}: {line}")


def _remains(instance: Instance) -> Remains:
    try:
        return removal.remains(instance.paths)
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} is not removed, since what it holds cannot be seen: "
            f"{exc.filename}: {exc.strerror}"
        ) from exc


def _confirmed(name: str, found: Remains, yes: bool) -> bool:
    """Whether what is found may be lost."""
    if yes:
        print_line(f"{name}: lost: {found}")
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            f"{name} is not removed, there would be lost: {found}",
            hint="--yes says that this is meant",
        )
    return click.confirm(f"{name}: lost for good: {found}. Remove it?", err=True)


def _stop(control: Control, instance: Instance) -> None:
    goal = control.stop(instance)
    [outcome] = waited(control, [goal], TIMEOUT)
    if outcome.row is None:
        raise UsageError(f"{instance.name} is gone: somebody else has removed it")
    if not outcome.reached:
        raise NotRunning(f"{instance.name} is not removed: it does not stop")
