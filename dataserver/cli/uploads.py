"""``dataserver uploads``: set up uploads by SSH, and manage the agents' keys."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Group, json_option, pass_app, print_error
from dataserver.cli.output import print_json, print_line, print_table
from dataserver.cli.steps import Step, put, show
from dataserver.config.paths import Home
from dataserver.errors import ConfigError, DataserverError, UsageError
from dataserver.templates import File
from dataserver.uploads import accounts, rights, routes, sshd
from dataserver.uploads.accounts import DATA_IN_MODE, SERVICE_USER, UPLOAD_GROUP
from dataserver.uploads.keys import Entry, Keys, PublicKey, check_name, keys_file, uploads_folder
from dataserver.uploads.plan import Plan, make_plan, readme

#: A public key is never larger than this (bytes).
_MAX_KEY = 64 * 1024


@click.group(cls=Group)
def uploads() -> None:
    """Uploads of agents by SSH: accounts, sshd, keys.

    \b
    Examples:
      dataserver uploads setup --install
      dataserver uploads key add web1 --file web1.pub
    """


# -- uploads setup --


@uploads.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write into this directory (default: uploads/ in the home).",
)
@click.option("--install", is_flag=True, help="Set this machine up; needs root.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="PATH[=INSTANCE]",
    help="An additional path to which agents upload, such as that of a Perl server.",
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
    """Write the files for uploads, or, with --install, set this machine up.

    Files that were edited are kept and reported. It can be run again at any time, also with more
    aliases; sshd is never reloaded.

    \b
    Examples:
      dataserver uploads setup --out /tmp/look
      dataserver uploads setup --install
      dataserver uploads setup --install --alias /var/spool/pandora/data_in=main
    """
    home = app.existing_home()
    if install and out is not None:
        raise UsageError("--out cannot be used with --install", hint="omit one of them")
    if install and os.geteuid() != 0:
        raise UsageError("--install needs root", hint="run it with sudo, or without --install")
    wanted = [routes.parse_alias(each) for each in aliases]
    plan = make_plan(home, _drop_directories(app), wanted)
    steps = _install(home, plan, replacing) if install else _write(home, plan, out, replacing)
    show(steps, as_json)


def _drop_directories(app: App) -> dict[str, Path]:
    """The drop directories by instance; broken settings of one are reported, the others go on."""
    found = {}
    for name in app.home.instance_names():
        try:
            found[name] = app.settings(name)[0].data_in
        except ConfigError as error:
            print_error(error)
    return found


def _write(home: Home, plan: Plan, out: Path | None, replacing: bool) -> Iterator[Step]:
    folder = Path.cwd() / out if out else uploads_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    for file, name in (
        (plan.accounts, "sysusers.conf"),
        (plan.sshd, "sshd.conf"),
        (plan.receive, "receive"),
        (File(Path("README.md"), readme(home, plan)), "README.md"),
    ):
        yield put(replace(file, path=folder / name), replacing)
    # Only ours: its former content is part of what is written.
    yield put(replace(plan.paths, path=folder / plan.paths.path.name), True, keep_old=False)
    yield from (Step("note", text) for text in plan.notes)
    yield Step("next", f"the steps in {folder}/README.md, or: dataserver uploads setup --install")


def _install(home: Home, plan: Plan, replacing: bool) -> Iterator[Step]:
    """Set the machine up, as root; everything that can be refused is checked first."""
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
        return Step("note", str(directory), "a system directory: its owner is not changed")
    try:
        good = directory.exists() and not list(rights.problems(directory))
        rights.prepare_data_in(directory)
    except DataserverError as error:
        return Step("note", str(error))
    owner = f"{SERVICE_USER}:{UPLOAD_GROUP}, mode {DATA_IN_MODE:o}"
    return Step("kept" if good else "set", str(directory), owner)


# -- uploads key --


@uploads.group(cls=Group)
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
    help="Only from these addresses or networks, separated by commas.",
)
@pass_app
def add(
    app: App, name: str, words: Sequence[str], file: Path | None, addresses: str | None
) -> None:
    """Allow the holder of a key to upload packets, and nothing else.

    KEY is one line as in FILE.pub; `-` reads it from standard input. It takes effect at once.

    \b
    Examples:
      dataserver uploads key add web1 --file web1.pub
      ssh web1 cat .ssh/id_ed25519.pub | dataserver uploads key add web1 -
      dataserver uploads key add branch --file branch.pub --from 198.51.100.0/24
    """
    check_name(name)
    if bool(words) == bool(file):
        raise UsageError(
            "exactly one key is needed", hint="give KEY, `-` for standard input, or --file FILE.pub"
        )
    entry = Entry.new(name, PublicKey.parse(_read(words, file)), addresses)
    Keys(keys_file(app.existing_home())).add(entry)
    print_line(f"{name}: may upload, {entry.key.kind} {entry.key.fingerprint}")


@key.command(name="list")
@json_option
@pass_app
def list_(app: App, as_json: bool) -> None:
    """List all keys, also those that were added by hand.

    \b
    Examples:
      dataserver uploads key list
      dataserver uploads key list --json
    """
    entries = Keys(keys_file(app.existing_home())).entries()
    if as_json:
        print_json([_as_json(entry) for entry in entries])
    elif entries:
        print_table(
            ("NAME", "TYPE", "FINGERPRINT", "FROM", "RESTRICTED"),
            [
                (
                    e.name or "-",
                    e.key.kind,
                    e.key.fingerprint,
                    e.addresses or "-",
                    "yes" if e.restricted else "NO",
                )
                for e in entries
            ],
        )
    else:
        print_line("none")


@key.command()
@click.argument("name")
@pass_app
def remove(app: App, name: str) -> None:
    """Remove a key; a running upload is not interrupted.

    \b
    Examples:
      dataserver uploads key remove web1
    """
    entry = Keys(keys_file(app.existing_home())).remove(name)
    print_line(f"{name}: removed, {entry.key.kind} {entry.key.fingerprint}")


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


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "type": entry.key.kind,
        "fingerprint": entry.key.fingerprint,
        "from": entry.addresses,
        "restricted": entry.restricted,
        "options": list(entry.options),
    }
