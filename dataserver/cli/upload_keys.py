"""``dataserver uploads key``: whose uploads are taken."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Group, json_option, pass_app
from dataserver.cli.output import print_json, print_line, print_table
from dataserver.errors import UsageError
from dataserver.home import Home
from dataserver.uploads.keys import Keys, keys_file
from dataserver.uploads.sshkeys import Entry, PublicKey, check_name

#: More than this is no public key (bytes).
_MAX_KEY = 64 * 1024


@click.group(cls=Group)
def key() -> None:
    """The keys with which agents may upload.

    \b
    Examples:
      dataserver uploads key add web1 --file web1.pub
      dataserver uploads key list
      dataserver uploads key remove web1
    """


@key.command()
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[KEY | -]")
@click.option(
    "--file",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="The agent's public key.",
)
@click.option(
    "--from",
    "addresses",
    metavar="ADDRESSES",
    help="Only from these addresses or networks, with commas between.",
)
@pass_app
def add(
    app: App, name: str, words: Sequence[str], file: Path | None, addresses: str | None
) -> None:
    """Let whoever has this key upload packets, and nothing else.

    KEY is one line as in FILE.pub; `-` reads it from standard input. sshd knows it at once.

    \b
    Examples:
      dataserver uploads key add web1 --file web1.pub
      ssh web1 cat .ssh/id_ed25519.pub | dataserver uploads key add web1 -
      dataserver uploads key add branch --file branch.pub --from 198.51.100.0/24
    """
    check_name(name)
    if bool(words) == bool(file):
        raise UsageError(
            "name one key", hint="give KEY, `-` for standard input, or --file FILE.pub"
        )
    entry = Entry.new(name, PublicKey.parse(_read(words, file)), addresses)
    Keys(keys_file(known_home(app))).add(entry)
    print_line(f"{name}: may upload, {entry.key.kind} {entry.key.fingerprint}")


@key.command(name="list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List them, with those that somebody else put there.

    \b
    Examples:
      dataserver uploads key list
      dataserver uploads key list --json
    """
    entries = Keys(keys_file(known_home(app))).entries()
    if as_json:
        print_json([_as_json(entry) for entry in entries])
    elif entries:
        print_table(
            ("NAME", "TYPE", "FINGERPRINT", "FROM", "RESTRICTED"),
            [
                (e.name or "-", e.key.kind, e.key.fingerprint, e.addresses or "-", _word(e))
                for e in entries
            ],
        )
    else:
        print_line("none")


@key.command()
@click.argument("name")
@pass_app
def remove(app: App, name: str) -> None:
    """Take a key away; an upload that runs now ends by itself.

    \b
    Examples:
      dataserver uploads key remove web1
    """
    entry = Keys(keys_file(known_home(app))).remove(name)
    print_line(f"{name}: removed, {entry.key.kind} {entry.key.fingerprint}")


def known_home(app: App) -> Home:
    """The home that is meant; UsageError where it has no instance, so is none."""
    if not app.home.instance_names():
        app.home.existing()
    return app.home


def _read(words: Sequence[str], file: Path | None) -> str:
    if file is not None:
        try:
            with file.open("rb") as opened:
                content = opened.read(_MAX_KEY)
        except OSError as exc:
            raise UsageError(f"cannot read {file}: {exc.strerror}") from exc
    elif list(words) == ["-"]:
        content = sys.stdin.buffer.read(_MAX_KEY)
    else:
        return " ".join(words)
    return content.decode("utf-8", "replace")


def _word(entry: Entry) -> str:
    return "yes" if entry.restricted else "NO"


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "type": entry.key.kind,
        "fingerprint": entry.key.fingerprint,
        "from": entry.addresses,
        "restricted": entry.restricted,
        "options": list(entry.options),
    }
