"""``dataserver uploads``: let agents in, and nobody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Group, complain, json_option, pass_app
from dataserver.cli.output import print_json, print_line, print_table
from dataserver.cli.steps import Step, put, show
from dataserver.config.paths import Home
from dataserver.errors import ConfigError, DataserverError, UsageError
from dataserver.templates import File
from dataserver.uploads import accounts, rights, routes, sshd
from dataserver.uploads import plan as uploads
from dataserver.uploads.accounts import DATA_IN_MODE, SERVICE_USER, UPLOAD_GROUP
from dataserver.uploads.keys import Entry, Keys, PublicKey, check_name, keys_file, uploads_folder
from dataserver.uploads.plan import Plan

# -- ``dataserver uploads key``: whose uploads are taken

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


# -- uploads --


@click.group(name="uploads", cls=Group)
def group() -> None:
    """Let agents upload by SSH: accounts, sshd, keys.

    \b
    Examples:
      dataserver uploads setup --install
      dataserver uploads key add web1 --file web1.pub
    """


group.add_command(key)


@group.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write into this directory (default: uploads/ in the home).",
)
@click.option("--install", is_flag=True, help="Set this machine up; as root.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="PATH[=INSTANCE]",
    help="One more path to which agents upload, such as that of a Perl server.",
)
@click.option(
    "--replace",
    "replacing",
    is_flag=True,
    help="Replace files that differ from what would be written; the old one becomes FILE.old.",
)
@json_option
@pass_app
def setup(
    app: App,
    out: Path | None,
    install: bool,
    aliases: Sequence[str],
    replacing: bool,
    as_json: bool,
) -> None:
    """Write what lets agents in, or, with --install, put it in place.

    Files that somebody changed stay as they are, and are named. Can be run again at any time,
    with more aliases too; sshd is never reloaded.

    \b
    Examples:
      dataserver uploads setup --out /tmp/look
      dataserver uploads setup --install
      dataserver uploads setup --install --alias /var/spool/pandora/data_in=main
    """
    home = known_home(app)
    if install and out is not None:
        raise UsageError("--install puts files where they belong", hint="leave --out away")
    if install and os.geteuid() != 0:
        raise UsageError("--install needs root", hint="run it with sudo, or without --install")
    wanted = [routes.parse_alias(each) for each in aliases]
    plan = uploads.plan(home, _drop_directories(app), wanted)
    steps = _install(home, plan, replacing) if install else _write(home, plan, out, replacing)
    show(steps, as_json)


def _drop_directories(app: App) -> dict[str, Path]:
    """The drop directory of every instance; one whose settings are broken holds up nobody."""
    found = {}
    for name in app.home.instance_names():
        try:
            found[name] = app.settings(name)[0].data_in
        except ConfigError as error:
            complain(error)
    return found


def _write(home: Home, plan: Plan, out: Path | None, replacing: bool) -> Iterator[Step]:
    folder = Path.cwd() / out if out else uploads_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in (
        (plan.accounts, "sysusers.conf"),
        (plan.sshd, "sshd.conf"),
        (plan.receive, "receive"),
        (File(Path("README.md"), uploads.readme(home, plan)), "README.md"),
    ):
        yield put(replace(file, path=folder / name), replacing)
    # Ours alone: what it had is part of what is written.
    yield put(replace(plan.paths, path=folder / plan.paths.path.name), True, keep_old=False)
    yield from (Step("note", text) for text in plan.notes)
    yield Step("next", f"the steps in {folder}/README.md, or: dataserver uploads setup --install")


def _install(home: Home, plan: Plan, replacing: bool) -> Iterator[Step]:
    """As root; what can be refused comes before anything is changed."""
    for problem in sshd.chroot_problems(home):
        raise UsageError(f"the home cannot be a chroot: {problem}")
    sshd.check_accepted()
    yield put(plan.accounts, replacing)
    yield from (Step("made", f"account {name}") for name in accounts.create(home))
    yield from _install_folder(home, plan, replacing)
    for directory in plan.directories.values():
        yield _give_rights(home, directory)
    for route in plan.routes:
        if route.alias and (made := routes.link(home, route)) is not None:
            link = f"{home.root}{route.path}"
            yield Step("made" if made else "kept", link, f"link to {route.directory}")
    yield put(plan.sshd, replacing, writing=sshd.install)
    notes = [*plan.notes, *sshd.problems(home)]
    yield from (Step("note", text) for text in notes)
    yield Step("next", "systemctl reload ssh")
    yield Step("next", "dataserver uploads key add NAME --file FILE.pub")
    yield Step("next", "dataserver check")


def _install_folder(home: Home, plan: Plan, replacing: bool) -> Iterator[Step]:
    folder = uploads_folder(home)
    folder.mkdir(exist_ok=True)
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    yield put(plan.receive, replacing)
    yield put(plan.paths, True, keep_old=False)
    keys = keys_file(home)
    yield Step("wrote" if Keys(keys).create() else "kept", str(keys))
    os.chown(keys, 0, 0)
    keys.chmod(0o644)


def _give_rights(home: Home, directory: Path) -> Step:
    if rights.untouchable(home, directory):
        return Step("note", str(directory), "a directory of the system's: its owner stays")
    try:
        good = directory.exists() and not list(rights.problems(directory))
        rights.prepare_data_in(directory)
    except DataserverError as error:
        return Step("note", str(error))
    owner = f"{SERVICE_USER}:{UPLOAD_GROUP}, mode {DATA_IN_MODE:o}"
    return Step("kept" if good else "set", str(directory), owner)
