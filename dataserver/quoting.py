"""Quoting paths for systemd's files: words in quotes, specifiers doubled.

Sources: systemd.syntax(7), "Quoting"; systemd.service(5), "Command lines"; tmpfiles.d(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dataserver.errors import UsageError

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+@:,=-")


def line(path: Path) -> str:
    """``path`` as the rest of a line; raises UsageError if systemd's files cannot contain it."""
    text = os.fspath(path)
    # Quotes and backslashes have different meanings in each kind of file.
    if not text.isprintable() or text != text.strip() or set(text) & {'"', "'", "\\"}:
        raise UsageError(
            f"systemd's files cannot contain the path {text!r}",
            hint="choose a path without quotes, backslashes and unprintable characters",
        )
    return text.replace("%", "%%")


def word(path: Path) -> str:
    """``path`` as one of several words."""
    text = line(path)
    return text if set(text) <= _PLAIN else f'"{text}"'


def words(paths: Iterable[Path], *, optional: bool = False) -> str:
    """Several paths; if ``optional``, each may be missing (systemd.exec(5), "Sandboxing")."""
    texts = [line(path) for path in paths]
    if optional:
        texts = [f"-{text}" for text in texts]
    return " ".join(text if set(text) <= _PLAIN else f'"{text}"' for text in texts)


def argument(path: Path) -> str:
    """``path`` as an argument of a command line, in which ``$`` would begin a variable."""
    return word(path).replace("$", "$$")
