"""``dataserver check``: whether an instance would run; what it needs, and what to do if not."""

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
from dataserver.config.paths import Home, Paths
from dataserver.config.settings import Settings
from dataserver.errors import DataserverError
from dataserver.rules import pcre2
from dataserver.uploads import checks

#: Less free space than this is a problem (bytes).
_LITTLE_SPACE = 512 * 2**20
_INOTIFY = Path("/proc/sys/fs/inotify")
#: The kernel's own default queue; a smaller one loses events in ordinary bursts.
_EVENTS_NEEDED = 16384


class Finding(NamedTuple):
    """One thing that was checked; ``text`` says what was found, or what to do."""

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

    Changes nothing. The exit code is 1 if there is any problem.

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
    for each in checks.findings(Home(paths.home), paths.name, settings.data_in):
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
    """Whether files in the folder can be listed, read, created and removed."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        return Finding(name, False, f"{path}: {exc.strerror}; create it: mkdir -p {path}")
    if not stat.S_ISDIR(mode):
        return Finding(name, False, f"{path} is not a directory; move it away")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(name, False, f"{path}: no access; grant user {os.geteuid()} rwx on it")
    return Finding(name, True, str(path))


def _nearest(path: Path) -> Path:
    """The existing folder in which ``path`` would be created."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _space(path: Path, name: str) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        return  # reported before: the folder does not exist
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
    """Whether the kernel can report new files; without inotify only the scan finds them."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        text = os.strerror(code)
        if code == errno.EMFILE:
            text = "too many instances in use; raise sysctl fs.inotify.max_user_instances"
        yield Finding("inotify", False, text)
        return
    os.close(descriptor)
    limits = {path.name: int(path.read_text("ascii")) for path in sorted(_INOTIFY.glob("max_*"))}
    shown = ", ".join(f"{name} {value}" for name, value in limits.items())
    enough = limits.get("max_queued_events", _EVENTS_NEEDED) >= _EVENTS_NEEDED
    advice = "" if enough else f"; raise sysctl fs.inotify.max_queued_events to {_EVENTS_NEEDED}"
    yield Finding("inotify", enough, shown + advice)


def _patterns() -> Finding:
    """Whether the system has the library for regular expressions, which the server requires."""
    try:
        pcre2.Engine(pcre2.LIBRARY)
    except DataserverError as exc:
        return Finding("patterns", False, str(exc))
    return Finding("patterns", True, pcre2.LIBRARY)


def _database(settings: Settings, paths: Paths) -> Iterator[Finding]:
    # Imported here: the rest of the check works without the database driver.
    from dataserver.store import database, probe, sqlite_file  # noqa: PLC0415

    if settings.database.startswith("sqlite:"):
        try:
            sqlite_file.must_not_be_missing(_sqlite_file(settings, paths))
        except DataserverError as exc:
            yield Finding("database", False, str(exc))
            return
        if new := _new_sqlite_file(settings, paths):
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
    """A finding if the file, or those that SQLite creates beside it, cannot be written."""
    for needed, rights in ((path, os.R_OK | os.W_OK), (path.parent, os.W_OK | os.X_OK)):
        if not os.access(needed, rights):
            text = f"{needed}: cannot be written; grant user {os.geteuid()} write access"
            yield Finding("db rights", False, text)


def _new_sqlite_file(settings: Settings, paths: Paths) -> Finding | None:
    """For a SQLite file that does not exist yet: whether the first start can create it."""
    path = _sqlite_file(settings, paths)
    if path.exists():
        return None
    folder = _folder("database", _nearest(path.parent))
    return folder._replace(text=f"{path}: the first start creates it") if folder.ok else folder
