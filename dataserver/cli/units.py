"""``dataserver instances units``: write and install systemd's files for the instances."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import click

import dataserver
from dataserver.cli.base import App, Command, json_option, pass_app, print_error
from dataserver.cli.steps import Step, put, show
from dataserver.config.load import load
from dataserver.config.paths import Home
from dataserver.errors import ConfigError, UsageError
from dataserver.fleet.registry import Registry
from dataserver.fleet.supervision.manager import BySupervisor
from dataserver.fleet.systemd.names import RUNS, TARGET, TMPFILES_FILE, UNITS, run, unit
from dataserver.fleet.systemd.units import Account, Needs, obstacle, systemd_files
from dataserver.templates import File
from dataserver.uploads import accounts, rights
from dataserver.uploads.accounts import SERVICE_USER


@click.command(cls=Command)
@click.option("--install", is_flag=True, help="Install and enable them; needs root.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write into this directory (default: instances/units/rendered in the home).",
)
@click.option(
    "--replace",
    "replacing",
    is_flag=True,
    help="Replace files that differ from what would be written; the old one becomes FILE.old.",
)
@json_option
@pass_app
def units(app: App, install: bool, out: Path | None, replacing: bool, as_json: bool) -> None:
    """Write the files that systemd needs to run the instances, or install them with --install.

    These are units, accounts, and the owners of directories. Running instances are not affected,
    and none is started. Files that were edited are kept and reported. It can be run again at any
    time, for example after an update; new instances do not need it.

    \b
    Examples:
      dataserver instances units --out /tmp/look
      dataserver instances units --install
    """
    if install and out is not None:
        raise UsageError("--out cannot be used with --install", hint="omit one of them")
    if install and os.geteuid() != 0:
        raise UsageError("--install needs root", hint="run it with sudo, or without --install")
    home = _home(app)
    needs = _needs(home)
    files = systemd_files(home, Path(sys.executable), _code(), needs)
    if install:
        steps = _install(home, files, needs, replacing)
    else:
        steps = _write(home, files, out, replacing)
    show(steps, as_json)


def _home(app: App) -> Home:
    home = app.existing_home()
    # systemd accepts no "..".  A path without it keeps its links: they may be intended.
    return Home(Path(os.path.realpath(home.root))) if ".." in home.root.parts else home


def _needs(home: Home) -> dict[str, Needs]:
    """What each instance needs; broken settings of one are reported, and the others go on."""
    found = {}
    for name in home.instance_names():
        try:
            # Without our environment: systemd does not pass it on.
            found[name] = Needs.of(load(home.instance(name), {}), home)
        except ConfigError as error:
            print_error(error)
    return found


def _code() -> list[Path]:
    """Files that the service reads: the interpreter, its library, this and another package."""
    library, package, another = os.__file__, dataserver.__file__, click.__file__
    return [Path(sys.executable), *(Path(each) for each in (library, package, another))]


def _write(home: Home, files: list[File], out: Path | None, replacing: bool) -> Iterator[Step]:
    folder = Path.cwd() / out if out else home.instances / "units" / "rendered"
    for file in files:
        yield put(replace(file, path=folder / file.path.relative_to("/")), replacing)
    yield from _obstacles()
    yield Step("next", "as root: dataserver instances units --install", "or by hand:")
    yield Step("next", f"cp -r {folder}/etc/. /etc/ && systemd-sysusers && systemctl daemon-reload")
    yield Step("next", f"systemd-tmpfiles --create {TMPFILES_FILE}")
    yield Step("next", f"systemctl enable {TARGET} {unit('NAME')}, and start {TARGET}")


def _install(
    home: Home, files: list[File], needs: dict[str, Needs], replacing: bool
) -> Iterator[Step]:
    for file in files:
        # The drop-ins of single instances are only ours.
        single = file.path.parent.parent == UNITS
        yield put(file, replacing or single, keep_old=not single)
    yield from (Step("made", f"account {name}") for name in accounts.create(home))
    if count := _take(home):
        yield Step("set", f"{count} files below {home.var}", f"they now belong to {SERVICE_USER}")
    owner = home.root.stat().st_uid
    run("systemd-tmpfiles", "--create", str(TMPFILES_FILE))
    yield Step("set", "owners and modes", f"as in {TMPFILES_FILE}")
    if owner != 0:
        yield Step("note", f"{home.root} belonged to user {owner}, and now belongs to root")
    if RUNS.is_dir():
        run("systemctl", "--no-ask-password", "daemon-reload")
    chosen = [each.name for each in Registry(home).instances() if each.enabled]
    run("systemctl", "--no-ask-password", "enable", TARGET, *map(unit, chosen))
    yield from (Step("enabled", each) for each in (TARGET, *map(unit, chosen)))
    yield from _obstacles()
    yield from _notes(home, needs)
    yield Step("next", f"systemctl start {TARGET}" if RUNS.is_dir() else "boot with systemd")


def _notes(home: Home, needs: dict[str, Needs]) -> Iterator[Step]:
    for name, each in needs.items():
        if rights.untouchable(home, each.data_in):
            why = f"it is a system directory; give {name} another data_in"
            yield Step("note", f"the owner of {each.data_in} was not changed", why)
        elif not each.data_in.is_dir():
            yield Step("note", f"{each.data_in} of {name} does not exist")
        if each.password is not None and (closed := obstacle(each.password, _service())):
            yield Step("note", f"{SERVICE_USER} cannot read {each.password}", f"see {closed}")
        if each.database is not None and (closed := obstacle(each.database, _service())):
            yield Step("note", f"{SERVICE_USER} cannot reach {each.database}", f"see {closed}")
    if BySupervisor(home).alive():
        yield Step("note", "`dataserver up` runs this home", "end it before systemd starts it")


def _obstacles() -> Iterator[Step]:
    """What keeps the service user from running this program."""
    for closed in sorted({each for path in _code() if (each := obstacle(path, _service()))}):
        why = f"open it (chmod o+x), or install dataserver where {SERVICE_USER} can read it"
        yield Step("WARN", f"{SERVICE_USER} cannot run this program: {closed} is closed to it", why)


def _service() -> Account:
    """The service user, or an account without any rights of its own if it does not exist yet."""
    return Account.named(SERVICE_USER) or Account(None, ())


def _take(home: Home) -> int:
    """Give files of root below ``var`` to the service user; returns their number.

    Commands run by root created them: a database by `check`, a lock by `run`.  A file with a
    second name is skipped: in a folder that another user can write to, that may be any file.
    """
    service = Account.named(SERVICE_USER)
    if service is None or service.uid is None or not home.var.is_dir() or home.var.is_symlink():
        return 0
    taken = 0
    for _, folders, names, at in os.fwalk(home.var, follow_symlinks=False):
        for name in [*folders, *names]:
            # By descriptor: the name may mean another file by now.
            with suppress(OSError), _opened(name, at) as fd:
                info = os.fstat(fd)
                plain = stat.S_ISDIR(info.st_mode) or info.st_nlink == 1
                if info.st_uid == 0 and plain:
                    os.fchown(fd, service.uid, service.gids[0])
                    taken += 1
    return taken


@contextmanager
def _opened(name: str, at: int) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(name, flags, dir_fd=at)
    try:
        yield fd
    finally:
        os.close(fd)
