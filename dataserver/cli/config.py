"""``dataserver config``: the settings of an instance, their origins, and the reference."""

from __future__ import annotations

import os

import click

from dataserver.cli.base import App, Command, Group, instance_argument, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.config.kinds import size_text
from dataserver.config.load import DEFAULT, PREFIX, variable
from dataserver.config.settings import ABOUT, About, Settings, value_text


@click.group(cls=Group)
def config() -> None:
    """Show the settings.

    \b
    Examples:
      dataserver config show --origin
    """


@config.command(cls=Command)
@instance_argument
@click.option("--origin", is_flag=True, help="Also show where each value comes from.")
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


# -- the reference of all settings: docs/configuration.md --


def reference() -> str:
    """The text of ``docs/configuration.md``."""
    defaults = Settings()
    parts = [_INTRODUCTION.format(prefix=PREFIX)]
    for key, about in ABOUT.items():
        where = [f"Default: {_default(defaults, key, about)}"]
        if about.unit:
            where.append(f"unit: {about.unit}")
        where.append(f"allowed: {about.kind.allowed}")
        if about.secret:
            where.append(f"only in the environment, as `{variable(key)}`")
        if about.own:
            where.append("not in the shared `dataserver.toml`")
        parts.append(f"## `{key}`\n\n{about.meaning}\n\n{'; '.join(where)}.\n")
    return "\n".join(parts)


def _default(defaults: Settings, key: str, about: About) -> str:
    value = getattr(defaults, key)
    if value is None:
        return "none"
    if key == "data_in":
        return '`"data_in"` beside `instance.toml`'
    shown = f'"{size_text(value)}"' if about.unit == "bytes" else value_text(value)
    return f"`{shown}`"


_INTRODUCTION = """\
# Configuration

<!-- Generated from dataserver/config/settings.py by `make docs`: change it there. -->

Settings come from four sources; later ones take precedence:

1. the defaults below;
2. `dataserver.toml` in the home, shared by all instances;
3. `instances/NAME/instance.toml`, for that instance;
4. the environment: `{prefix}` and the key in capitals, for example `{prefix}LOG_LEVEL=debug`.

Both files are TOML, flat, with the keys below. `dataserver config show --origin` shows each
value and its origin. An unknown key, or a value of the wrong type or out of range, is an error
that names key and file; nothing is guessed. Durations are plain seconds.
Sizes are bytes or text with a unit (kB, MB, GB: powers of 1000; KiB, MiB, GiB: of 1024).
A running instance reads its configuration again on SIGHUP.

The database's password belongs in a file of its own (`database_password_file`, first line) or
in the environment, and is never shown; a password inside the `database` URL works and is
hidden, too, but everyone who can read the file sees it.
"""
