"""``dataserver init``: create a home, new or with the settings of a Perl server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import textwrap
from collections.abc import Iterable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from dataserver.cli.base import App, Command, pass_app
from dataserver.cli.output import print_line
from dataserver.cli.program import spelled
from dataserver.config import perl
from dataserver.config.load import load
from dataserver.config.paths import CONFIG_NAME, Home
from dataserver.config.perl import Takeover
from dataserver.config.settings import ABOUT
from dataserver.errors import ConfigError, UsageError

PASSWORD_FILE = "database.password"


@click.command(cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--from",
    "perl_config",
    metavar="FILE",
    type=click.Path(path_type=Path, readable=False),
    help="Take over the settings of this pandora_server.conf.",
)
@pass_app
def init(app: App, directory: Path | None, perl_config: Path | None) -> None:
    """Create a home in DIR (default: --home, or the current directory).

    Existing files are not changed.

    \b
    Examples:
      dataserver init /srv/dataserver
      dataserver init /srv/dataserver --from /etc/pandora/pandora_server.conf
    """
    home = Home(Path.cwd() / (directory or app.home_option or "."))
    if perl_config is None:
        _write_home(home, None, "")
    else:
        takeover = _read(perl_config)
        _refuse_existing(home)
        _write_home(home, takeover, str(perl_config))
        _report(takeover, str(perl_config))
    load(home.instance(), os.environ)
    print_line(spelled(f"next: dataserver --home {home.root} check"))


def _read(path: Path) -> Takeover:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
    text, warnings = perl.decode(content)
    if not perl.recognised(text):
        raise UsageError(
            f"{path} contains no setting of a Perl server's configuration",
            hint="name the Perl server's pandora_server.conf",
        )
    try:
        takeover = perl.read(text, "".join(socket.gethostname().split()))
        takeover.warnings[:0] = warnings
        _check(takeover)
    except ConfigError as exc:
        raise ConfigError(f"{path}: {exc.message}", hint=exc.hint) from exc
    return takeover


def _check(takeover: Takeover) -> None:
    """Check, before any file is written, that all values are valid settings here."""
    values = _values(takeover)
    for note in takeover.notes:
        if note.setting is None:
            continue
        kind, value = ABOUT[note.setting].kind, values[note.setting]
        try:
            kind.decode(value, Path("/"))
        except ValueError as exc:
            raise ConfigError(
                f"its {note.key} cannot be taken over: {note.setting} = {value!r} {exc}",
                hint=f"allowed: {kind.allowed}",
            ) from exc


def _refuse_existing(home: Home) -> None:
    """Raise UsageError if there are settings already: they would mix with those taken over."""
    for path in (home.config, home.instance().config, home.root / PASSWORD_FILE):
        if path.exists():
            raise UsageError(
                f"{path} exists already", hint="use a new directory, or move the file away"
            )


def _write_home(home: Home, takeover: Takeover | None, source: str) -> None:
    for name, shipped in _shipped(files("dataserver") / "resources" / "home"):
        text = shipped if takeover is None else _adapted(name, shipped, takeover, source)
        if text is not None:
            _write_new(home.root / name, text)
    home.var.mkdir(exist_ok=True)
    if takeover is not None:
        _write_password(home.root / PASSWORD_FILE, takeover.password)


def _shipped(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The packaged files of a home: the path in the home, and the text."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _shipped(entry, f"{prefix}{entry.name}/")
        # Templates stay in the package: those in a home would override the ones of an upgrade.
        elif not entry.name.endswith(".j2"):
            yield prefix + entry.name, entry.read_text("utf-8")


def _adapted(name: str, shipped: str, takeover: Takeover, source: str) -> str | None:
    """A packaged file with the settings taken over, or None if the home does not need it."""
    if name.startswith("data_in/"):
        return None
    if name == "instances/main/instance.toml":
        return shipped.replace('"../../data_in"', _toml(takeover.data_in))
    if name == CONFIG_NAME:
        lines = [f"{key} = {_toml(value)}" for key, value in _settings(takeover).items()]
        return "\n".join([shipped, f"# Taken over from {source}:", *lines, ""])
    return shipped


def _values(takeover: Takeover) -> dict[str, str | int | bool]:
    return {**_settings(takeover), "data_in": takeover.data_in}


def _settings(takeover: Takeover) -> dict[str, str | int | bool]:
    return {**takeover.shared, "database_password_file": PASSWORD_FILE}


def _toml(value: str | int | bool) -> str:
    # The JSON of these types is valid TOML.
    return json.dumps(value, ensure_ascii=False)


def _write_new(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print_line(f"kept   {path}")
    else:
        print_line(f"wrote  {path}")


def _write_password(path: Path, password: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(password + "\n")
    print_line(f"wrote  {path} (readable by its owner only)")


def _report(takeover: Takeover, source: str) -> None:
    """Print what became of each key of the Perl server's file."""
    taken, left = [], []
    for note in takeover.notes:
        if note.setting is None:
            left.append(f"{' '.join(filter(None, (note.key, note.value)))}: {note.text}")
            continue
        because = "" if note.key == note.setting else f"{note.key} -> "
        why = f" ({note.text})" if note.text else ""
        taken.append(f"{because}{note.setting} = {_toml(_values(takeover)[note.setting])}{why}")
    _section(f"taken over from {source}:", taken)
    _section("different here:", left)
    _section("lines of the file to check:", takeover.warnings)
    _section("no difference:", filter(None, [", ".join(takeover.same)]))
    _section(
        f"not needed here ({len(takeover.others)} keys of its process and its other servers):",
        filter(None, [", ".join(takeover.others)]),
    )
    print_line()


def _section(head: str, entries: Iterable[str]) -> None:
    """Print a heading and its entries, wrapped to the terminal's width."""
    width = shutil.get_terminal_size().columns
    for number, entry in enumerate(entries):
        if number == 0:
            print_line()
            print_line(head)
        for line in textwrap.wrap(
            entry,
            max(width, 40),
            initial_indent="  ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        ):
            print_line(line)
