"""``dataserver keepalived``: the files of the twin pair, this host's status, comparing hosts."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app
from dataserver.cli.output import local_time, print_json, print_line
from dataserver.cli.program import spelled
from dataserver.cli.store import instance_option, reading_store
from dataserver.errors import UsageError
from dataserver.rules.moments import duration_text
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.processes import processes_seen
from dataserver.store.servers import GIVEN_UP
from dataserver.templates import File
from dataserver.templates import render as render_template
from dataserver.vrrp import configtest
from dataserver.vrrp.health import Checked
from dataserver.vrrp.model import Pair, pair_file
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.renderer import CONFIG, render_pair, watched
from dataserver.vrrp.status import HostStatus, look
from dataserver.vrrp.verify import Outcome, compare


class _Keepalived(Group):
    """The group; its help lists the commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands."""
        return list(self.commands)


@click.group(cls=_Keepalived)
def keepalived() -> None:
    """The twin pair: two hosts behind one address, which keepalived moves between them.

    keepalived/pair.toml describes the pair; all other files are generated from it.

    \b
    Examples:
      dataserver keepalived init
      dataserver keepalived render
      dataserver keepalived status
    """


# -- init, render and test: the files of a pair --

#: Folders of ``keepalived/`` that are never reported as extra.
_OTHER_FOLDERS = frozenset({"templates"})


@keepalived.command(cls=Command)
@pass_app
def init(app: App) -> None:
    """Write keepalived/pair.toml, with comments, to be filled in.

    An existing file is not changed.

    \b
    Examples:
      dataserver keepalived init
    """
    home = app.existing_home()
    path = pair_file(home)
    text = render_template(home, "keepalived/templates/pair.toml.j2")
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise UsageError(f"{path} exists already", hint="edit it, or move it away") from exc
    print_line(f"wrote {path}")
    print_line(spelled("next: fill it in, then `dataserver keepalived render`"))


@keepalived.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the hosts' folders into this directory (default: keepalived/ in the home).",
)
@click.option("--check", is_flag=True, help="Write nothing: list the files that would change.")
@click.pass_context
@pass_app
def render(app: App, context: click.Context, out: Path | None, check: bool) -> None:
    """Generate each host's folder from pair.toml: keepalived's files, and a README of the steps.

    Existing files are replaced. With --check the exit code is 1 unless all files are up to date.

    \b
    Examples:
      dataserver keepalived render
      dataserver keepalived render --check
      dataserver keepalived render --out /tmp/look
    """
    home = app.existing_home()
    path = pair_file(home)
    pair = read_pair(path)
    files = render_pair(home, pair, watched(home, pair, os.environ))
    folder = Path.cwd() / out if out else path.parent
    if check:
        stale = _differences(folder, files, pair)
        for line in stale:
            print_line(line)
        if not stale:
            print_line(f"{len(files)} files in {folder} are up to date")
        context.exit(1 if stale else 0)
    for file in files:
        target = folder / file.path
        is_new = not _is_current(target, file)
        if is_new:
            _write(target, file)
        print_line(f"{'wrote' if is_new else 'kept ':<6} {target}")
    for line in _differences(folder, files, pair):
        print_line(line)
    tested = folder / pair.hosts[0].name
    print_line(spelled(f"next: `dataserver keepalived test {tested}`, then its README.md"))


@keepalived.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def test(context: click.Context, folder: Path) -> None:
    """Test the configuration in DIR, a host's folder, with keepalived itself; needs root.

    keepalived runs in its own namespaces, with the files of DIR in place and substitutes for
    what this machine lacks (interfaces, the account of the scripts), which is listed. The exit
    code is 0 if keepalived would run with the configuration, else 1.

    \b
    Examples:
      dataserver keepalived test keepalived/alpha
    """
    tested = configtest.test(Path.cwd() / folder)
    for line in tested.output:
        print_line(line)
    for what in tested.lacking:
        if tested.own:
            print_line(f"missing: {what}, and this is the host that needs it")
        else:
            print_line(f"not tested: this machine does not have {what}")
    path = folder / CONFIG
    if tested.good:
        print_line(f"{path}: good")
    else:
        code = f" (keepalived's exit code {tested.code})" if tested.code else ""
        print_line(f"{path}: NOT good{code}")
    context.exit(0 if tested.good else 1)


def _is_current(target: Path, file: File) -> bool:
    try:
        mode = target.lstat().st_mode
        # Checked before reading: a pipe would never end.
        return (
            stat.S_ISREG(mode)
            and bool(mode & 0o100) == bool(file.mode & 0o100)
            and target.read_bytes() == file.text.encode()
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _differences(folder: Path, files: Sequence[File], pair: Pair) -> list[str]:
    """The differences between the folder and the files, a line each."""
    found = []
    for file in files:
        target = folder / file.path
        if not _is_current(target, file):
            found.append(f"{'stale  ' if os.path.lexists(target) else 'missing'} {target}")
    wanted = {folder / file.path for file in files}
    hosts = {host.name for host in pair.hosts}
    for each in sorted(folder.iterdir()) if folder.is_dir() else ():
        if each.name in hosts and each.is_dir():
            extra = sorted(path for path in each.iterdir() if path not in wanted)
        elif each.name not in _OTHER_FOLDERS and (each / CONFIG).is_file():
            extra = [each]
        else:
            extra = []
        found += [f"extra   {path}" for path in extra]
    return found


def _make_way(target: Path) -> None:
    """Create the host's folder; UsageError if something else has its name or the file's."""
    folder = target.parent
    in_the_way = None
    if os.path.lexists(folder) and not folder.is_dir():
        in_the_way = f"{folder} is not a directory"
    elif target.is_dir() and not target.is_symlink():
        in_the_way = f"{target} is a directory"
    if in_the_way:
        raise UsageError(f"{in_the_way}, and so cannot be written", hint="move it away")
    folder.mkdir(parents=True, exist_ok=True)


def _write(target: Path, file: File) -> None:
    """Replace the file atomically."""
    _make_way(target)
    fd, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(fd, "wb") as stream:
            stream.write(file.text.encode())
            stream.flush()
            os.fchmod(fd, file.mode)
            os.fsync(fd)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


# -- status --


@keepalived.command(cls=Command)
@json_option
@click.pass_context
@pass_app
def status(app: App, context: click.Context, as_json: bool) -> None:
    """Show which host has the address, since when, and the results of the checks.

    To be run on one of the hosts. The exit code is 0 without problems, with or without the
    address, else 1.

    \b
    Examples:
      dataserver keepalived status
      dataserver keepalived status --json
    """
    host_status = look(read_pair(pair_file(app.home)))
    problems = list(host_status.problems())
    if as_json:
        print_json(_as_json(host_status, problems))
    else:
        for key, value in _lines(host_status).items():
            print_line(f"{key + ':':<11} {value}")
        for problem in problems:
            print_line(f"problem:    {problem}")
    context.exit(1 if problems else 0)


def _lines(host_status: HostStatus) -> dict[str, str]:
    known = host_status.known
    if known is None:
        state = "unknown"
    else:
        ago = duration_text(time.time() - known.since)
        state = f"{known.state} since {local_time(known.since)} ({ago})"
    return {
        "host": f"{host_status.host.name} ({host_status.host.address.ip})",
        "address": _whereabouts(host_status),
        "state": state,
        "keepalived": "does not run"
        if host_status.pid is None
        else f"runs (process {host_status.pid})",
        "health": _checked(host_status.health),
        "data_in": _checked(host_status.drop),
    }


def _whereabouts(host_status: HostStatus) -> str:
    addresses = ", ".join(str(each.ip) for each in host_status.pair.virtual_addresses)
    if host_status.here:
        here = ", ".join(f"{address} on {interface}" for address, interface in host_status.here)
        return f"here: {here}"
    twin = host_status.pair.twin(host_status.host).name
    if host_status.knows and host_status.known and host_status.known.state == "BACKUP":
        # A backup receives the master's adverts, or it would be MASTER itself.
        return f"{addresses} is on {twin}"
    return f"{addresses} is not here; check {twin}"


def _checked(checked: Checked | None) -> str:
    if checked is None:
        return "unknown"
    words = {"takes": "takes files", "fault": "takes no files", "waiting": "healthy"}
    ago = "" if checked.age is None else f", {duration_text(checked.age)} ago"
    text = f": {checked.text}" if checked.text else ""
    return f"{words.get(checked.result, checked.result)}{text}{ago}"


def _as_json(host_status: HostStatus, problems: list[str]) -> dict[str, Any]:
    known = host_status.known
    return {
        "host": host_status.host.name,
        "twin": host_status.pair.twin(host_status.host).name,
        "addresses": [str(each.ip) for each in host_status.pair.virtual_addresses],
        "here": [{"address": a, "interface": i} for a, i in host_status.here],
        "has_address": host_status.has_address,
        "state": known.state if known else None,
        "since": known.since if known else None,
        "priority": known.priority if known else None,
        "keepalived": host_status.pid,
        "notify": host_status.is_told,
        "health": _checked_json(host_status.health),
        "drop": _checked_json(host_status.drop),
        "problems": problems,
    }


def _checked_json(checked: Checked | None) -> dict[str, Any] | None:
    if checked is None:
        return None
    return {"result": checked.result, "text": checked.text, "age": checked.age}


# -- verify --

_WORDS = {Outcome.EQUAL: "ok", Outcome.DIFFERENT: "DIFFERS", Outcome.UNKNOWN: "UNKNOWN"}


@keepalived.command(cls=Command)
@instance_option
@json_option
@click.pass_context
@pass_app
def verify(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Compare the hosts of the pair: keys, configuration, versions, clocks, pair.toml.

    Each running instance writes fingerprints of its host's files into the shared database; the
    other host is not contacted. Changes of the last minute may not be visible yet. Exit code 1
    unless everything was compared and is equal.

    \b
    Examples:
      dataserver keepalived verify
      dataserver keepalived verify --json
    """
    settings, _ = app.settings(instance)
    what = "read the state of the servers"
    with reading_store(app, instance) as store, translating(what), reading(store.engine) as conn:
        seen = processes_seen(conn, store.layout)
    path = pair_file(app.home)
    pair = read_pair(path) if path.exists() else None
    named = [host.name for host in pair.hosts] if pair else []
    live = float(GIVEN_UP * settings.server_keepalive)
    comparison = compare(seen, live, named, pair.instances if pair else ())
    if as_json:
        print_json(
            {
                "equal": comparison.equal,
                "hosts": comparison.hosts,
                "findings": [
                    {"what": f.what, "outcome": f.outcome, "text": f.text}
                    for f in comparison.findings
                ],
            }
        )
    else:
        for finding in comparison.findings:
            print_line(f"{_WORDS[finding.outcome]:<8} {finding.what:<16} {spelled(finding.text)}")
    context.exit(0 if comparison.equal else 1)
