"""The plan of an upload setup: files, links and notes, as texts; a command writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.templates import File
from dataserver.uploads.accounts import (
    DATA_IN_MODE,
    SCP_USER,
    SERVICE_USER,
    UPLOAD_GROUP,
    UPLOAD_USER,
    accounts_file,
)
from dataserver.uploads.keys import keys_file, uploads_folder
from dataserver.uploads.routes import (
    Route,
    inside,
    is_alias,
    kept_aliases,
    lines_of,
    mounted,
    natural,
    paths_file,
    with_aliases,
)
from dataserver.uploads.sshd import check_plain, drop_in, receive_path


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to write, the links to make, and notes for the administrator."""

    #: All paths by which drop directories can be reached.
    routes: list[Route]
    #: For the home's ``uploads/``.
    receive: File
    paths: File
    #: For ``/etc``.
    accounts: File
    sshd: File
    #: What an administrator has to do or know, one line each.
    notes: list[str]

    @property
    def directories(self) -> dict[str, Path]:
        """The drop directory of each instance."""
        return {each.instance: each.directory for each in self.routes if not each.alias}


def make_plan(
    home: Home, drop_directories: Mapping[str, Path], aliases: Iterable[tuple[str, str]] = ()
) -> Plan:
    """The plan for uploads into ``drop_directories`` (by instance), with old and new aliases.

    Raises UsageError if the home's path or an alias cannot be used.
    """
    check_plain(home)
    # An instance whose settings cannot be read now keeps its lines.
    broken = [name for name in home.instance_names() if name not in drop_directories]
    others = [line for name in broken for line in lines_of(home, name)]
    kept, notes = [], []
    for path, instance in kept_aliases(home):
        if instance in drop_directories:
            kept.append((path, instance))
        elif instance not in broken:
            notes.append(f"alias {path} is dropped: there is no instance {instance}")
    own = natural(home, drop_directories)
    routes = with_aliases(own, [*kept, *aliases])
    notes += [
        _outside(home, each)
        for each in own
        if inside(home, each.directory) is None and not mounted(home, routes, each)
    ]
    return Plan(
        routes,
        receive_file(home),
        paths_file(home, routes, others),
        accounts_file(home),
        drop_in(home),
        notes,
    )


def receive_file(home: Home) -> File:
    """The program that sshd runs for the old protocol."""
    text = files("dataserver").joinpath("resources", "uploads", "receive").read_text("utf-8")
    return File(receive_path(home), text, 0o755)


def _outside(home: Home, route: Route) -> str:
    """What to do about a drop directory outside of the chroot: mount it there.

    It gets the same path if possible, so that both accounts use one path.
    """
    point, then = route.path, ""
    if not is_alias(point):
        point = f"/var/spool/{route.instance}"
        then = f", then --alias {point}={route.instance}"
    return (
        f"{route.directory} of {route.instance} is outside of {home.root}: {SCP_USER} can reach "
        f"it, {UPLOAD_USER} cannot; mount it there: mkdir -p {home.root}{point} && "
        f"mount --bind {route.directory} {home.root}{point} (and in /etc/fstab){then}"
    )


def readme(home: Home, made: Plan) -> str:
    """The steps to do by hand instead of ``--install``."""
    root, folder = home.root, uploads_folder(home)
    rights = [
        f"    chown {SERVICE_USER}:{UPLOAD_GROUP} {directory} && chmod {DATA_IN_MODE:o} {directory}"
        for directory in made.directories.values()
    ]
    links = [
        f"    mkdir -p {root}{Path(each.path).parent} && ln -srn {each.directory} {root}{each.path}"
        for each in made.routes
        if each.alias and inside(home, each.directory) is not None
    ]
    return "\n".join(
        [
            "# Setting up uploads",
            "",
            "`dataserver uploads setup --install`, as root, does all of this. By hand, as root:",
            "",
            "1. Accounts:",
            "",
            f"        cp sysusers.conf {made.accounts.path} && systemd-sysusers",
            f"        usermod -p '*' {UPLOAD_USER}; usermod -p '*' {SCP_USER}",
            "",
            f"2. {root} and all above it belong to root, and only root may write there. So do",
            "   the files of this folder:",
            "",
            f"        mkdir -p {folder} && cp receive paths {folder}/",
            f"        touch {keys_file(home)} && chown -R root:root {folder}",
            f"        chmod 755 {folder} {folder}/receive",
            f"        chmod 644 {folder}/paths {keys_file(home)}",
            "",
            "3. The drop directories, and links for aliases:",
            "",
            *(f"    {line}" for line in [*rights, *links]),
            "",
            "4. sshd:",
            "",
            f"        cp sshd.conf {made.sshd.path} && sshd -t && systemctl reload ssh",
            "",
            "5. A key for each agent: `dataserver uploads key add NAME --file FILE.pub`. Then the",
            f"   agent uploads with `scp FILE {UPLOAD_USER}@HOST:/data_in/`, or in the old",
            f"   protocol with `scp -O FILE {SCP_USER}@HOST:/data_in/`.",
            "",
            "`dataserver check` lists what is still missing.",
            "",
        ]
    )
