"""Text as systemd's files have it: words in quotes, specifiers doubled.

Sources: systemd.syntax(7), "Quoting"; systemd.service(5), "Command lines"; tmpfiles.d(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from dataserver.errors import UsageError

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+@:,=-")


def line(path: Path) -> str:
    """``path`` where the rest of a line is the value.  UsageError: systemd cannot have it."""
    text = os.fspath(path)
    # A quote or backslash means something else in each kind of file; the rest ends lines.
    if not text.isprintable() or text != text.strip() or set(text) & {'"', "'", "\\"}:
        raise UsageError(
            f"systemd's files cannot name {text!r}",
            hint="choose a path without quotes, backslashes, line ends and the like",
        )
    return text.replace("%", "%%")


def word(path: Path) -> str:
    """``path`` as one of several words."""
    text = line(path)
    return text if set(text) <= _PLAIN else f'"{text}"'


def words(paths: Iterable[Path], *, optional: bool = False) -> str:
    """Several paths; ``optional``: each may be missing (systemd.exec(5), "Sandboxing")."""
    texts = [line(path) for path in paths]
    if optional:
        texts = [f"-{text}" for text in texts]
    return " ".join(text if set(text) <= _PLAIN else f'"{text}"' for text in texts)


def argument(path: Path) -> str:
    """``path`` as an argument of a command line, in which ``$`` is a variable otherwise."""
    return word(path).replace("$", "$$")
