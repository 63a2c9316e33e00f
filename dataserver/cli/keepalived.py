"""``dataserver keepalived``: the commands for the twin pair, each loaded when it is used."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

import click

from dataserver.cli.base import Group

#: Command to module; its name there is that of the command.
_COMMANDS = {
    "init": "dataserver.cli.keepalived_files",
    "render": "dataserver.cli.keepalived_files",
    "test": "dataserver.cli.keepalived_files",
    "verify": "dataserver.cli.keepalived_verify",
    "status": "dataserver.cli.keepalived_status",
}


class _Keepalived(Group):
    """The group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of the help."""
        return [name for name, module in _COMMANDS.items() if find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, loaded now; None where there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_Keepalived)
def keepalived() -> None:
    """The twin pair: two hosts behind one address, which keepalived moves between them.

    keepalived/pair.toml says what the pair is; everything else is made from it.

    \b
    Examples:
      dataserver keepalived init
      dataserver keepalived render
      dataserver keepalived status
    """
