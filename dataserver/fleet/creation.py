"""Creating an instance: its folder appears complete and checked, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

from dataserver.config.load import read
from dataserver.config.paths import Home, Paths
from dataserver.config.settings import ABOUT
from dataserver.errors import ConfigError, DataserverError, UsageError
from dataserver.fleet import ownership
from dataserver.fleet.aside import NEW, erase, move
from dataserver.uploads.rights import prepare_data_in

_HEAD = """\
# The instance `{name}`: settings that differ from ../../dataserver.toml. Every setting is allowed;
# `dataserver config show {name} --origin` lists all settings and their origins.

# Where agents drop their packets, relative to this file.
"""
#: A basic string of TOML cannot contain this character; one of JSON can.
_DELETE = {0x7F: "\\u007f"}


def create(
    home: Home, paths: Paths, data_in: Path | None, values: Mapping[str, str], others: list[Paths]
) -> None:
    """Create the instance; the caller holds :func:`dataserver.fleet.aside.changing`.

    ``data_in`` is absolute, or None for a directory in the instance's folder.  ``values`` are
    settings as text.  Raises UsageError, ConfigError, or DataserverError if something cannot be
    written; then nothing is left behind.
    """
    _must_be_free(home, paths, others)
    settings = decode(values)
    ownership.check(home, paths.name, data_in or paths.folder / "data_in", others)
    aside = Paths(home.root, NEW + paths.name)
    try:
        with _undone_on_failure(home, aside.folder) as make:
            make(aside.folder)
            if data_in is None:
                make(aside.folder / "data_in")
                prepare_data_in(aside.folder / "data_in")
            elif missing := _missing(data_in):
                for folder in missing:
                    make(folder)
                prepare_data_in(data_in)
            elif not data_in.is_dir():
                raise UsageError(f"{data_in} cannot be a data_in: it is not a directory")
            _write(aside.config, _text(paths.name, data_in, settings), home)
            _check(aside, paths)
            move(aside.folder, paths.folder)
    except OSError as exc:
        where = _final(os.fsdecode(exc.filename or ""), aside, paths)
        raise DataserverError(
            f"instance {paths.name} cannot be created: {where}: {exc.strerror}",
            hint="nothing was created",
        ) from exc


def decode(values: Mapping[str, str]) -> dict[str, object]:
    """Settings given as text, decoded; ConfigError names one that is invalid."""
    return {key: _decoded(key, text) for key, text in values.items()}


def _decoded(key: str, text: str) -> object:
    about = ABOUT.get(key)
    if about is None:
        close = get_close_matches(key, ABOUT, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "`dataserver config show` lists all"
        raise ConfigError(f"there is no setting {key!r}", hint=hint)
    if about.secret:
        raise ConfigError(
            f"{key} is not allowed in an instance's file",
            hint=f"put it into a file of its own and name that file in {key}_file",
        )
    if key == "data_in":
        raise ConfigError("data_in is set by --data-in, not by --set")
    try:
        text.encode("utf-8")
        raw = about.kind.from_text(text)
        about.kind.decode(raw, Path("/"))
    except ValueError as exc:
        raise ConfigError(
            f"{key} = {text!r} cannot be set", hint=f"allowed: {about.kind.allowed}"
        ) from exc
    return raw


def _must_be_free(home: Home, paths: Paths, others: Iterable[Paths]) -> None:
    if paths.name in [other.name for other in others]:
        raise UsageError(
            f"instance {paths.name!r} exists already in {home.root}",
            hint=f"`dataserver instances start {paths.name}` starts it",
        )
    if os.path.lexists(paths.folder):
        raise UsageError(
            f"{paths.folder} exists already and is not an instance",
            hint="move it away, or choose another name",
        )


def _missing(path: Path) -> list[Path]:
    """The directories that have to be created for ``path``, outermost first."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    return missing[::-1]


@contextmanager
def _undone_on_failure(home: Home, aside: Path) -> Iterator[_Make]:
    """Yield a function that creates directories; they are removed if the block fails."""
    make = _Make(home)
    try:
        yield make
    except BaseException:
        with suppress(OSError):
            erase(aside)
        for folder in reversed(make.made):
            # Only empty ones: an upload may have arrived in a new drop directory.
            with suppress(OSError):
                folder.rmdir()
        raise


class _Make:
    """Creates directories and remembers them; those of root are given to the home's owner."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.made: list[Path] = []

    def __call__(self, folder: Path) -> None:
        folder.mkdir()
        self.made.append(folder)
        # Whatever this user's umask: the instance may run as another user.
        folder.chmod(0o755)
        _give(folder, self._home)


def _give(path: Path, home: Home) -> None:
    """As root, give a new file to the owner of ``instances/``: the instances run as that user."""
    if os.geteuid() == 0:
        owner = home.instances.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _text(name: str, data_in: Path | None, settings: Mapping[str, object]) -> str:
    values = {"data_in": "data_in" if data_in is None else os.fspath(data_in), **settings}
    return _HEAD.format(name=name) + "".join(f"{k} = {_toml(v)}\n" for k, v in values.items())


def _toml(value: object) -> str:
    # The JSON of these types is valid TOML, except for one character.
    return json.dumps(value, ensure_ascii=False).translate(_DELETE)


def _write(path: Path, text: str, home: Home) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o644)
    _give(path, home)


def _check(aside: Paths, paths: Paths) -> None:
    """Read the new file as the instance will; ConfigError names its final path."""
    try:
        read(aside, {})
    except ConfigError as exc:
        raise ConfigError(_final(exc.message, aside, paths), hint=exc.hint) from exc


def _final(text: str, aside: Paths, paths: Paths) -> str:
    return text.replace(os.fspath(aside.folder), os.fspath(paths.folder))
