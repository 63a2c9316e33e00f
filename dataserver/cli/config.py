"""``dataserver config``: what is set, where each value came from, and the reference."""

from __future__ import annotations

import os

import click

from dataserver.cli.base import App, Command, Group, instance_argument, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.cli.reference import reference
from dataserver.config import DEFAULT, variable
from dataserver.settings import ABOUT, Settings


@click.group(cls=Group)
def config() -> None:
    """Look at the settings.

    \b
    Examples:
      dataserver config show --origin
    """


@config.command(cls=Command)
@instance_argument
@click.option("--origin", is_flag=True, help="Also say where each value comes from.")
@json_option
@pass_app
def show(app: App, instance: str, origin: bool, as_json: bool) -> None:
    """Show every setting of an instance (default: main), as TOML. Passwords are hidden.

    \b
    Examples:
      dataserver config show --origin
      dataserver config show main --json
    """
    settings, _ = app.settings(instance)
    if as_json:
        print_json({key: _as_json(settings, key) for key in ABOUT})
        return
    for key in ABOUT:
        line = f"{key} = {settings.shown(key)}"
        print_line(f"{line:<48}  # {_origin(settings, key)}" if origin else line)


@config.command(cls=Command, hidden=True, name="reference")
def write_reference() -> None:
    """Print docs/configuration.md."""
    click.echo(reference(), nl=False)


def _as_json(settings: Settings, key: str) -> dict[str, object]:
    value = getattr(settings, key)
    if value is not None and not isinstance(value, bool | int | float):
        value = settings.shown(key)[1:-1]
    return {"value": value, "origin": _origin(settings, key)}


def _origin(settings: Settings, key: str) -> str:
    origin = settings.origins[key]
    if origin == DEFAULT or os.sep in origin:
        return origin
    return f"{origin} {variable(key)}"
