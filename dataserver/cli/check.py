"""``dataserver check``: would an instance run? Each thing it needs as ok or what to do."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from dataserver.cli.base import App, Command, instance_argument, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.cli.program import spelled
from dataserver.config.kinds import masked, size_text
from dataserver.config.load import Settings
from dataserver.config.paths import Home, Paths
from dataserver.errors import DataserverError
from dataserver.rules import pcre2
from dataserver.uploads import checks as upload_check

#: Below this, free space is a finding (bytes).
_LITTLE_SPACE = 512 * 2**20
_INOTIFY = Path("/proc/sys/fs/inotify")
#: The kernel's own default queue; a smaller one loses events in ordinary bursts.
_EVENTS_NEEDED = 16384


class Finding(NamedTuple):
    """One thing that was looked at; ``text`` says what is, or what to do."""

    name: str
    ok: bool
    text: str


@click.command(cls=Command)
@instance_argument
@json_option
@click.pass_context
@pass_app
def check(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Check what an instance (default: main) needs: configuration, folders, system, database.

    Changes nothing. Exit code 1 if anything is not in order.

    \b
    Examples:
      dataserver check
      dataserver check main --json
    """
    settings, paths = app.settings(instance)
    findings = [Finding("configuration", True, str(paths.config)), *_findings(settings, paths)]
    ok = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": ok, "checks": [finding._asdict() for finding in findings]})
    else:
        for name, good, text in findings:
            print_line(f"{'ok' if good else 'PROBLEM':<8} {name:<14} {spelled(text)}")
    context.exit(0 if ok else 1)


def _findings(settings: Settings, paths: Paths) -> Iterator[Finding]:
    yield _time_zone(settings)
    yield _folder("data_in", settings.data_in)
    yield _folder("var", _nearest(paths.var))
    for folder in {settings.data_in: "data_in", paths.home: "home"}.items():
        yield from _space(*folder)
    yield from _password_file(settings)
    for each in upload_check.findings(Home(paths.home), paths.name, settings.data_in):
        yield Finding(*each)
    yield from _inotify()
    yield _patterns()
    yield from _database(settings, paths)


def _time_zone(settings: Settings) -> Finding:
    try:
        zone = settings.zone(os.environ)
    except DataserverError as exc:
        return Finding("timezone", False, str(exc))
    return Finding("timezone", True, str(zone))


def _folder(name: str, path: Path) -> Finding:
    """Whether files can be listed, read, made and removed there."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        return Finding(name, False, f"{path}: {exc.strerror}; make it: mkdir -p {path}")
    if not stat.S_ISDIR(mode):
        return Finding(name, False, f"{path} is not a directory; move it away")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(name, False, f"{path}: no rights; give user {os.geteuid()} rwx on it")
    return Finding(name, True, str(path))


def _nearest(path: Path) -> Path:
    """The folder that is there already and in which ``path`` would be made."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _space(path: Path, name: str) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return  # said before: the folder is not there
    text = f"{size_text(free // 2**20 * 2**20)} free in {path}"
    if free < _LITTLE_SPACE:
        text += "; make room"
    yield Finding(f"space {name}", free >= _LITTLE_SPACE, text)


def _password_file(settings: Settings) -> Iterator[Finding]:
    path = settings.database_password_file
    if path is None:
        return
    others = stat.S_IMODE(path.stat().st_mode) & 0o007
    text = f"{path} can be read by everyone; chmod o-rwx {path}" if others else str(path)
    yield Finding("password file", not others, text)


def _inotify() -> Iterator[Finding]:
    """Whether the doorbell would ring; without it only the scan finds new files."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        text = os.strerror(code)
        if code == errno.EMFILE:
            text = "too many are in use; raise sysctl fs.inotify.max_user_instances"
        yield Finding("inotify", False, text)
        return
    os.close(descriptor)
    limits = {path.name: int(path.read_text("ascii")) for path in sorted(_INOTIFY.glob("max_*"))}
    shown = ", ".join(f"{name} {value}" for name, value in limits.items())
    enough = limits.get("max_queued_events", _EVENTS_NEEDED) >= _EVENTS_NEEDED
    advice = "" if enough else f"; raise sysctl fs.inotify.max_queued_events to {_EVENTS_NEEDED}"
    yield Finding("inotify", enough, shown + advice)


def _patterns() -> Finding:
    """Whether the system has the library of regular expressions, without which nothing runs."""
    try:
        pcre2.Engine(pcre2.LIBRARY)
    except DataserverError as exc:
        return Finding("patterns", False, str(exc))
    return Finding("patterns", True, pcre2.LIBRARY)


def _database(settings: Settings, paths: Paths) -> Iterator[Finding]:
    # Imported here: the rest of the check works where the database's driver does not.
    from dataserver.store import database, probe, sqlite_file  # noqa: PLC0415

    if settings.database.startswith("sqlite:"):
        try:
            sqlite_file.must_not_be_missing(_sqlite_file(settings, paths))
        except DataserverError as exc:
            yield Finding("database", False, str(exc))
            return
        if new := _sqlite_to_be_made(settings, paths):
            yield new
            return
        yield from _rights_on_file(_sqlite_file(settings, paths))
    try:
        opened = database.open_readonly(
            settings.database,
            password=settings.database_password,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.database_timeout,
            home=paths.home,
        )
        for found in probe.check(opened, accept_no_alerts=settings.accept_no_alerts):
            yield Finding(f"db {found.name}", found.ok, found.text)
    except DataserverError as exc:
        yield Finding("database", False, f"{masked(settings.database)}: {exc}")


def _sqlite_file(settings: Settings, paths: Paths) -> Path:
    return paths.home / settings.database.removeprefix("sqlite:///").partition("?")[0]


def _rights_on_file(path: Path) -> Iterator[Finding]:
    """A finding where the file and those that SQLite puts beside it cannot be written."""
    for needed, rights in ((path, os.R_OK | os.W_OK), (path.parent, os.W_OK | os.X_OK)):
        if not os.access(needed, rights):
            text = f"{needed}: cannot be written; give user {os.geteuid()} the right"
            yield Finding("db rights", False, text)


def _sqlite_to_be_made(settings: Settings, paths: Paths) -> Finding | None:
    """For a SQLite file that is not there yet: whether the first start can make it."""
    path = _sqlite_file(settings, paths)
    if path.exists():
        return None
    folder = _folder("database", _nearest(path.parent))
    return folder._replace(text=f"{path}: the first start makes it") if folder.ok else folder
