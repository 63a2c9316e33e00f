"""``dataserver keepalived``: the commands for the twin pair, each loaded when it is used."""

from __future__ import annotations

import importlib
import os
import stat
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app
from dataserver.cli.output import local_time, print_json, print_line
from dataserver.cli.program import spelled
from dataserver.cli.store import instance_option, reading_store
from dataserver.cli.uploads import known_home
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
from dataserver.vrrp.status import Standing, look
from dataserver.vrrp.verify import Outcome, compare

#: Command to module; its name there is that of the command.
_COMMANDS = {
    "init": "dataserver.cli.keepalived",
    "render": "dataserver.cli.keepalived",
    "test": "dataserver.cli.keepalived",
    "verify": "dataserver.cli.keepalived",
    "status": "dataserver.cli.keepalived",
}


class _Keepalived(Group):
    """The group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them, in the order of the help."""
        return [name for name, module in _COMMANDS.items() if find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them, loaded now; None where there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_Keepalived)
def keepalived() -> None:
    """The twin pair: two hosts behind one address, which keepalived moves between them.

    keepalived/pair.toml says what the pair is; everything else is made from it.

    \b
    Examples:
      dataserver keepalived init
      dataserver keepalived render
      dataserver keepalived status
    """


# -- ``dataserver keepalived init``, ``render`` and ``test``: the files of a pair

#: Folders of ``keepalived/`` in which a look for forgotten ones finds nothing.
_OTHER_FOLDERS = frozenset({"templates"})


@click.command(cls=Command)
@pass_app
def init(app: App) -> None:
    """Write keepalived/pair.toml, with comments, to be filled in.

    One that is there already stays as it is.

    \b
    Examples:
      dataserver keepalived init
    """
    home = known_home(app)
    path = pair_file(home)
    text = render_template(home, "keepalived/templates/pair.toml.j2")
    path.parent.mkdir(exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise UsageError(f"{path} is there already", hint="change it, or move it away") from exc
    print_line(f"wrote {path}")
    print_line(spelled("next: fill it in, then `dataserver keepalived render`"))


@click.command(cls=Command)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the hosts' folders into this directory (default: keepalived/ in the home).",
)
@click.option(
    "--check", is_flag=True, help="Write nothing: say what is not as it would be written."
)
@click.pass_context
@pass_app
def render(app: App, context: click.Context, out: Path | None, check: bool) -> None:
    """Make each host's folder from pair.toml: what keepalived needs, and a README of the steps.

    Existing files are replaced. With --check the exit code is 1 unless all are there and fresh.

    \b
    Examples:
      dataserver keepalived render
      dataserver keepalived render --check
      dataserver keepalived render --out /tmp/look
    """
    home = known_home(app)
    path = pair_file(home)
    pair = read_pair(path)
    files = render_pair(home, pair, watched(home, pair, os.environ))
    folder = Path.cwd() / out if out else path.parent
    if check:
        stale = _differences(folder, files, pair)
        for line in stale:
            print_line(line)
        if not stale:
            print_line(f"{len(files)} files in {folder} are fresh")
        context.exit(1 if stale else 0)
    for file in files:
        target = folder / file.path
        is_new = not _is_fresh(target, file)
        if is_new:
            _write(target, file)
        print_line(f"{'wrote' if is_new else 'kept ':<6} {target}")
    for line in _differences(folder, files, pair):
        print_line(line)
    tested = folder / pair.hosts[0].name
    print_line(spelled(f"next: `dataserver keepalived test {tested}`, then its README.md"))


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.pass_context
def test(context: click.Context, folder: Path) -> None:
    """Have keepalived test the configuration in DIR, a host's folder; as root.

    It runs in namespaces of its own, with the files of DIR in place and stand-ins for what this
    machine lacks (interfaces, the account of the scripts), which is named. The exit code is 0 if
    keepalived would run with it, else 1.

    \b
    Examples:
      dataserver keepalived test keepalived/alpha
    """
    tested = configtest.test(Path.cwd() / folder)
    for line in tested.said:
        print_line(line)
    for what in tested.lacking:
        if tested.own:
            print_line(f"missing: {what}, and this is the host that needs it")
        else:
            print_line(f"cannot be told here: {what} is not on this machine")
    path = folder / CONFIG
    if tested.good:
        print_line(f"{path}: good")
    else:
        code = f" (keepalived's exit code {tested.code})" if tested.code else ""
        print_line(f"{path}: NOT good{code}")
    context.exit(0 if tested.good else 1)


def _is_fresh(target: Path, file: File) -> bool:
    try:
        mode = target.lstat().st_mode
        # Before it is read: a pipe would never end.
        return (
            stat.S_ISREG(mode)
            and bool(mode & 0o100) == bool(file.mode & 0o100)
            and target.read_bytes() == file.text.encode()
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _differences(folder: Path, files: Sequence[File], pair: Pair) -> list[str]:
    """What in the folder is not as the files have it, a line each."""
    found = []
    for file in files:
        target = folder / file.path
        if not _is_fresh(target, file):
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
    """Make the host's folder; UsageError where something lies in the way of it or of the file."""
    folder = target.parent
    in_the_way = None
    if os.path.lexists(folder) and not folder.is_dir():
        in_the_way = f"{folder} is no directory"
    elif target.is_dir() and not target.is_symlink():
        in_the_way = f"{target} is a directory"
    if in_the_way:
        raise UsageError(f"{in_the_way}, and so cannot be written", hint="move it away")
    folder.mkdir(parents=True, exist_ok=True)


def _write(target: Path, file: File) -> None:
    """Replace the file whole."""
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


# -- ``dataserver keepalived status``: has this host the address, since when, what say the check


@click.command(cls=Command)
@json_option
@click.pass_context
@pass_app
def status(app: App, context: click.Context, as_json: bool) -> None:
    """Show who has the address, since when, and what the checks say; on one of the hosts.

    The exit code is 0 if all is as it should be, with or without the address, else 1.

    \b
    Examples:
      dataserver keepalived status
      dataserver keepalived status --json
    """
    standing = look(read_pair(pair_file(app.home)))
    problems = list(standing.problems())
    if as_json:
        print_json(_as_json(standing, problems))
    else:
        for key, value in _lines(standing).items():
            print_line(f"{key + ':':<11} {value}")
        for problem in problems:
            print_line(f"problem:    {problem}")
    context.exit(1 if problems else 0)


def _lines(standing: Standing) -> dict[str, str]:
    known = standing.known
    if known is None:
        state = "unknown"
    else:
        ago = duration_text(time.time() - known.since)
        state = f"{known.state} since {local_time(known.since)} ({ago})"
    return {
        "host": f"{standing.host.name} ({standing.host.address.ip})",
        "address": _whereabouts(standing),
        "state": state,
        "keepalived": "does not run" if standing.pid is None else f"runs (process {standing.pid})",
        "health": _checked(standing.health),
        "data_in": _checked(standing.drop),
    }


def _whereabouts(standing: Standing) -> str:
    addresses = ", ".join(str(each.ip) for each in standing.pair.virtual_addresses)
    if standing.here:
        here = ", ".join(f"{address} on {interface}" for address, interface in standing.here)
        return f"here: {here}"
    twin = standing.pair.twin(standing.host).name
    if standing.knows and standing.known and standing.known.state == "BACKUP":
        # A backup hears the other one, or would be MASTER itself.
        return f"{addresses} is on {twin}"
    return f"{addresses} is not here; ask {twin}"


def _checked(checked: Checked | None) -> str:
    if checked is None:
        return "unknown"
    words = {"takes": "takes files", "fault": "takes no files", "waiting": "healthy"}
    ago = "" if checked.age is None else f", {duration_text(checked.age)} ago"
    text = f": {checked.text}" if checked.text else ""
    return f"{words.get(checked.result, checked.result)}{text}{ago}"


def _as_json(standing: Standing, problems: list[str]) -> dict[str, Any]:
    known = standing.known
    return {
        "host": standing.host.name,
        "twin": standing.pair.twin(standing.host).name,
        "addresses": [str(each.ip) for each in standing.pair.virtual_addresses],
        "here": [{"address": a, "interface": i} for a, i in standing.here],
        "has_address": standing.has_address,
        "state": known.state if known else None,
        "since": known.since if known else None,
        "priority": known.priority if known else None,
        "keepalived": standing.pid,
        "notify": standing.is_told,
        "health": _checked_json(standing.health),
        "drop": _checked_json(standing.drop),
        "problems": problems,
    }


def _checked_json(checked: Checked | None) -> dict[str, Any] | None:
    if checked is None:
        return None
    return {"result": checked.result, "text": checked.text, "age": checked.age}


# -- ``dataserver keepalived verify``: do the hosts of the pair match?

_WORDS = {Outcome.EQUAL: "ok", Outcome.DIFFERENT: "DIFFERS", Outcome.UNKNOWN: "UNKNOWN"}


@click.command(cls=Command)
@instance_option
@json_option
@click.pass_context
@pass_app
def verify(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Compare the hosts of the pair: keys, configuration, versions, clocks, pair.toml.

    Each instance that runs says in the shared database what its host has; nothing is asked of
    the other host. What was changed less than a minute ago may not be seen yet. Exit code 1
    unless all was compared and is equal.

    \b
    Examples:
      dataserver keepalived verify
      dataserver keepalived verify --json
    """
    settings, _ = app.settings(instance)
    what = "read what the servers say of themselves"
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
