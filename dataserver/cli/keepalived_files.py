"""``dataserver keepalived init``, ``render`` and ``test``: the files of a pair."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from dataserver.cli.base import App, Command, pass_app
from dataserver.cli.output import print_line
from dataserver.cli.program import spelled
from dataserver.cli.upload_keys import known_home
from dataserver.errors import UsageError
from dataserver.templates import File
from dataserver.templates import render as render_template
from dataserver.vrrp import configtest
from dataserver.vrrp.model import Pair, pair_file
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.renderer import CONFIG, render_pair
from dataserver.vrrp.watched import watched

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
