"""Reading an instance's settings: from the defaults, two files and the environment.

Later sources override earlier ones: the defaults in :mod:`dataserver.config.settings`, the home's
``dataserver.toml``, the instance's ``instance.toml``, the environment (``DATASERVER_``
and the key in capitals).  The source of every value is recorded.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from dataserver.config.kinds import masked
from dataserver.config.paths import MAIN, Home, Paths
from dataserver.config.settings import ABOUT, Settings
from dataserver.errors import ConfigError

PREFIX = "DATASERVER_"
#: Maximum size of a settings file, in bytes.
LARGEST = 1 << 20
DEFAULT = "default"


class _Source(NamedTuple):
    """A source of values: its name in messages, and where its relative paths start."""

    name: str
    values: Mapping[str, object]
    base: Path


def variable(key: str) -> str:
    """The environment variable that sets ``key``."""
    return PREFIX + key.upper()


def load(paths: Paths, environment: Mapping[str, str]) -> Settings:
    """The settings of one instance.

    Raises UsageError if the home or instance does not exist, and ConfigError naming
    key, source and what is allowed for anything wrong in a source.
    """
    Home(paths.home).existing(paths.name)
    return read(paths, environment)


def load_for_reading(paths: Paths, environment: Mapping[str, str]) -> Settings:
    """Like :func:`load`, for reading commands: a home without instances may have settings, too."""
    home = Home(paths.home)
    if paths.name == MAIN and home.config.is_file() and not home.instance_names():
        return _settings_from(paths, _sources(home, paths, environment, is_alone=True))
    return load(paths, environment)


def read(paths: Paths, environment: Mapping[str, str]) -> Settings:
    """Like :func:`load`, but the instance need not exist yet: for one that is being created."""
    return _settings_from(paths, _sources(Home(paths.home), paths, environment))


def _settings_from(paths: Paths, sources: list[_Source]) -> Settings:
    values: dict[str, Any] = {"data_in": paths.folder / "data_in"}
    origins = dict.fromkeys(ABOUT, DEFAULT)
    for source in sources:
        for key, raw in source.values.items():
            values[key] = _decode(source, key, raw)
            origins[key] = source.name
    _add_password(values, origins)
    settings = Settings(**values, origins=MappingProxyType(origins))
    _check_together(settings)
    return settings


def _sources(
    home: Home, paths: Paths, environment: Mapping[str, str], *, is_alone: bool = False
) -> list[_Source]:
    """The sources in order; with ``is_alone``, only the home's, without those of an instance."""
    sources = []
    for path, shared in ((home.config, True), (paths.config, False)):
        # The shared file is optional.
        if (shared and not path.exists()) or (is_alone and not shared):
            continue
        source = _Source(str(path), _read(path), path.parent)
        _check_keys(source, shared)
        sources.append(source)
    sources.append(_environment(environment, home))
    return sources


def _read(path: Path) -> dict[str, object]:
    try:
        return read_toml(path)
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc


def read_toml(path: Path) -> dict[str, object]:
    """The content of a TOML file; raises ValueError if it is not TOML, or OSError.

    It does not wait for a pipe, and reads no file that is far too long for settings.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            raise ValueError("it is a pipe")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it is longer than {LARGEST} bytes")
    try:
        found = tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not _has_plain_numbers(found):
        raise ValueError("it has a number beyond TOML's 64 bits")
    return found


def _has_plain_numbers(found: object) -> bool:
    """Whether all numbers fit in 64 bits; longer ones cannot always be printed or converted."""
    if isinstance(found, dict):
        return all(map(_has_plain_numbers, found.values()))
    if isinstance(found, list):
        return all(map(_has_plain_numbers, found))
    return not isinstance(found, int) or found.bit_length() < 64


def _check_keys(source: _Source, shared: bool) -> None:
    for key in source.values:
        about = ABOUT.get(key)
        if about is None:
            raise ConfigError(f"{source.name}: there is no setting {key!r}", hint=_nearest(key))
        if about.secret:
            raise ConfigError(
                f"{source.name}: {key} is not allowed in this file",
                hint=f"put it into a separate file and set {key}_file to its path",
            )
        if about.own and shared:
            raise ConfigError(
                f"{source.name}: {key} cannot be the same for all instances",
                hint="set it in instances/NAME/instance.toml",
            )


def _nearest(key: str) -> str:
    close = get_close_matches(key, ABOUT, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "`dataserver config show` lists all settings"


def _environment(environment: Mapping[str, str], home: Home) -> _Source:
    """The settings among the environment variables, as TOML would give them.

    Other variables with our prefix are ignored (container platforms set some for a service of that
    name), unless they look like a misspelt setting.
    """
    values: dict[str, object] = {}
    for name in sorted(environment):
        if not name.startswith(PREFIX):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in ABOUT:
            values[key] = _from_text(name, key, environment[name])
        elif close := get_close_matches(key, ABOUT, n=1, cutoff=0.85):
            raise ConfigError(
                f"{name} is not a setting", hint=f"did you mean {variable(close[0])}?"
            )
    return _Source("environment", values, home.root)


def _from_text(name: str, key: str, text: str) -> object:
    kind = ABOUT[key].kind
    try:
        return kind.from_text(text)
    except ValueError as exc:
        raise ConfigError(f"{name} = {text!r} cannot be read", hint=f"give {kind.allowed}") from exc


def _decode(source: _Source, key: str, raw: object) -> object:
    about = ABOUT[key]
    try:
        return about.kind.decode(raw, source.base)
    except ValueError as exc:
        shown = "***" if about.secret else masked(repr(raw))
        raise ConfigError(
            f"{source.name}: {key} = {shown} {exc}", hint=f"allowed: {about.kind.allowed}"
        ) from exc


def _add_password(values: dict[str, Any], origins: dict[str, str]) -> None:
    """Read ``database_password_file``, unless the password itself is given."""
    path = values.get("database_password_file")
    if path is None or "database_password" in values:
        return
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"{origins['database_password_file']}: database_password_file {path} cannot be "
            f"read: {exc.strerror if isinstance(exc, OSError) else 'it is not UTF-8'}"
        ) from exc
    if not text:
        raise ConfigError(f"database_password_file {path} is empty")
    # Not str.splitlines: other characters that it splits at may be part of the password.
    values["database_password"] = text.split("\n", 1)[0]
    origins["database_password"] = str(path)


def _check_together(settings: Settings) -> None:
    if settings.settle > settings.settle_max:
        raise ConfigError(
            f"settle = {settings.settle:g} ({settings.origins['settle']}) is more than "
            f"settle_max = {settings.settle_max:g} ({settings.origins['settle_max']})",
            hint="decrease settle or increase settle_max",
        )
