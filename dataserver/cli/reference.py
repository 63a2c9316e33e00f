"""The reference of all settings, made from their fields: ``docs/configuration.md``."""

from __future__ import annotations

from dataserver.config import PREFIX, variable
from dataserver.setting_kinds import size_text
from dataserver.settings import ABOUT, About, Settings, value_text


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

<!-- Generated from dataserver/settings.py by `make docs`: change it there. -->

Four sources, later ones win:

1. the defaults below;
2. `dataserver.toml` in the home: what all instances share;
3. `instances/NAME/instance.toml`: what differs in that instance;
4. the environment: `{prefix}` and the key in capitals, for example `{prefix}LOG_LEVEL=debug`.

Both files are TOML, flat, with the keys below. `dataserver config show --origin` shows each
value and where it came from. A key that does not exist, a value of the wrong type or out of
range is an error that names key and file; nothing is guessed. Durations are plain seconds.
Sizes are bytes or text with a unit (kB, MB, GB: powers of 1000; KiB, MiB, GiB: of 1024).
A running instance reads its configuration again on SIGHUP.

The database's password stands in a file of its own (`database_password_file`, first line) or
in the environment, and is never shown; a password inside the `database` URL works and is
hidden, too, but whoever reads the file can read it.
"""
