"""Checks whether agents can upload, and nothing else, according to files and accounts."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import DataserverError
from dataserver.templates import File
from dataserver.uploads import accounts, rights, sshd
from dataserver.uploads.keys import Keys, keys_file, uploads_folder
from dataserver.uploads.plan import receive_file
from dataserver.uploads.routes import (
    kept_aliases,
    link_problems,
    natural,
    paths_file,
    with_aliases,
)

_SETUP = "run `dataserver uploads setup --install` as root"


def findings(home: Home, instance: str, data_in: Path) -> Iterator[tuple[str, bool, str]]:
    """The name of each check, whether it is ok, and one line; none if uploads are not set up."""
    folder = uploads_folder(home)
    if not folder.is_dir():
        return
    topics: dict[str, tuple[str, Callable[[], Iterator[str]]]] = {
        "uploads users": (accounts.UPLOAD_USER, lambda: accounts.problems(home)),
        "uploads chroot": (str(home.root), lambda: sshd.chroot_problems(home)),
        "uploads rights": (str(data_in), lambda: rights.problems(data_in)),
        "uploads keys": (str(keys_file(home)), lambda: _keys(home)),
        "uploads scp": (
            str(folder / "receive"),
            lambda: _receive(home, instance, data_in),
        ),
        "uploads sshd": (str(sshd.DROP_IN), lambda: _sshd(home)),
    }
    for name, (subject, look) in topics.items():
        problems = list(_guarded(look))
        yield from ((name, False, text) for text in problems)
        if not problems:
            yield name, True, subject


def _guarded(look: Callable[[], Iterator[str]]) -> Iterator[str]:
    """The problems that ``look`` finds; an error is one more problem, not the end of the check."""
    try:
        yield from look()
    except DataserverError as exc:
        yield str(exc)
    except PermissionError as exc:
        yield f"{exc.filename} cannot be read by this user; run this as root"
    except OSError as exc:
        yield f"{exc.filename}: {exc.strerror}; {_SETUP}"


def _keys(home: Home) -> Iterator[str]:
    path = keys_file(home)
    yield from _rights(path, 0o444)
    keys = Keys(path)
    for entry in keys.entries():
        if not entry.restricted:
            yield (
                f"{path}: key {entry.name or entry.key.fingerprint} is not restricted; "
                "remove its line and add it with `dataserver uploads key add`"
            )
    for number in keys.not_understood():
        yield f"{path}: line {number} is not a key; remove it"


def _receive(home: Home, instance: str, data_in: Path) -> Iterator[str]:
    yield from _same(receive_file(home), 0o555)
    aliases = [each for each in kept_aliases(home) if each[1] == instance]
    routes = with_aliases(natural(home, {instance: data_in}), aliases)
    wanted = paths_file(home, routes)
    yield from _rights(wanted.path, 0o444)
    found = set(wanted.path.read_text("utf-8", errors="replace").split("\n"))
    for line in wanted.text.split("\n"):
        if line not in found and not line.startswith("#"):
            yield f"{wanted.path} lacks {line!r}; {_SETUP}"
    yield from link_problems(home, routes)


def _sshd(home: Home) -> Iterator[str]:
    different = list(_same(sshd.drop_in(home)))
    yield from different
    if not different:
        yield from sshd.problems(home)


def _same(file: File, needed: int = 0) -> Iterator[str]:
    """The problems of an installed file: it is missing, different, or writable by others."""
    try:
        text = file.path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        yield f"there is no {file.path}; {_SETUP}"
        return
    if text != file.text:
        yield (
            f"{file.path} is not what would be written now; {_SETUP}, with --replace if "
            "it was not changed on purpose"
        )
    yield from _rights(file.path, needed)


def _rights(path: Path, needed: int) -> Iterator[str]:
    """Problems unless the file and its folder are root's, and everyone has ``needed`` rights."""
    for each, bits in ((path.parent, needed and 0o555), (path, needed)):
        found = each.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != 0:
            yield f"{each} belongs to user {found.st_uid}; chown root:root {each}"
        if mode & 0o022 or mode & bits != bits:
            yield f"{each} has mode {mode:o}; chmod {(mode | bits) & ~0o022:o} {each}"
