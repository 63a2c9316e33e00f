"""``dataserver instances``: the commands for virtual instances, and making one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dataserver.cli.base import App, Command, Group, pass_app
from dataserver.cli.instances_control import control_of, restart, said, start, stop, timeout_option
from dataserver.cli.instances_list import list_
from dataserver.cli.instances_logs import logs
from dataserver.cli.instances_remove import remove
from dataserver.cli.output import print_line
from dataserver.cli.program import spelled
from dataserver.errors import UsageError
from dataserver.fleet.registry import Registry

#: What of the group is loaded when it is used: module and what the help says of it.
_LATER = {"units": ("dataserver.cli.units", "systemd's files for the instances.")}


class _Instances(Group):
    """The group; commands that load much are stood for until they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, as they were added."""
        return [*self.commands, *_LATER]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; None where there is none of that name."""
        if cmd_name in _LATER:
            return _Later(cmd_name, *_LATER[cmd_name])
        return super().get_command(ctx, cmd_name)


class _Later(click.Command):
    """Stands for a command of the same name in ``module``."""

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
        """The context of the command itself."""
        command: click.Command = getattr(importlib.import_module(self._module), str(self.name))
        return command.make_context(info_name, args, parent, **extra)


@click.group(cls=_Instances)
def instances() -> None:
    """Virtual instances: servers of their own on this machine, with the same database.

    instances/NAME/ is all there is to one, var/NAME/ what running it leaves behind. systemd or
    `dataserver up` runs those that are enabled.

    \b
    Examples:
      dataserver instances spawn beta
      dataserver instances list
      dataserver instances remove beta
    """


@instances.command(cls=Command)
@click.argument("name")
@click.option(
    "--data-in",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="Its drop directory, made where missing (default: data_in in its folder).",
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
    """Make an instance and start it.

    Its folder appears whole or not at all. A data_in that belongs to another instance, lies in
    one or around one, is refused. Where nothing runs this home the instance is made and
    `dataserver up` will run it. Exit code 7 if it does not come up; its folder stays.

    \b
    Examples:
      dataserver instances spawn beta
      dataserver instances spawn beta --data-in /srv/beta --set settle=0 --set log_level=debug
    """
    registry = Registry(app.home)
    made = registry.create(name, data_in, _values(settings))
    control = control_of(app)
    [row] = control.rows([made])
    print_line(f"{name}: made; agents drop packets into {row.data_in}")
    if control.manager is None:
        print_line(spelled("nothing runs this home: `dataserver up` runs it"))
        return
    context.exit(said(control, [control.start(made)], timeout))


def _values(settings: Sequence[str]) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting!r} sets nothing", hint="say --set KEY=VALUE")
        if key in values:
            raise UsageError(f"--set {key} is there twice")
        values[key] = value
    return values


for _command in (list_, start, stop, restart, remove, logs):
    instances.add_command(_command)
