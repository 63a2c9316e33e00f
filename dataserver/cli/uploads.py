"""``dataserver uploads``: let agents in, and nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click

from dataserver.cli.base import App, Group, complain, json_option, pass_app
from dataserver.cli.steps import Step, put, show
from dataserver.cli.upload_keys import key, known_home
from dataserver.errors import ConfigError, DataserverError, UsageError
from dataserver.home import Home
from dataserver.templates import File
from dataserver.uploads import accounts, rights, routes, sshd
from dataserver.uploads import plan as uploads
from dataserver.uploads.accounts import DATA_IN_MODE, SERVICE_USER, UPLOAD_GROUP
from dataserver.uploads.keys import Keys, keys_file, uploads_folder
from dataserver.uploads.plan import Plan


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
