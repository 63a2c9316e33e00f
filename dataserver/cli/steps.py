"""The steps of a command that sets a machine up: printing them, and installing files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dataserver.cli.output import print_json, print_line
from dataserver.cli.program import spelled
from dataserver.templates import File


class Step(NamedTuple):
    """One thing that was done, was kept, or is to be done by hand."""

    did: str
    what: str
    why: str = ""


def show(steps: Iterable[Step], as_json: bool) -> None:
    """Print the steps, a line each, as they are done; or all as JSON."""
    if as_json:
        print_json([step._asdict() for step in steps])
        return
    for did, what, why in steps:
        print_line(f"{did:<6} {spelled(what)}{f' ({why})' if why else ''}")


def write(file: File) -> None:
    """Replace a file atomically."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.path.with_name(f".{file.path.name}.new")
    temporary.write_text(file.text, encoding="utf-8")
    temporary.chmod(file.mode)
    temporary.replace(file.path)


def put(
    file: File,
    replacing: bool,
    *,
    keep_old: bool = True,
    writing: Callable[[File], None] = write,
) -> Step:
    """Write a file unless a different one exists; with ``replacing`` the old one is saved."""
    path = file.path
    old = path.read_bytes() if path.exists() else None
    if old == file.text.encode():
        path.chmod(file.mode)
        return Step("kept", str(path))
    if old is not None and not replacing:
        return Step("kept", str(path), "it differs from what would be written; use --replace")
    why = ""
    if old is not None and keep_old:
        saved = path.with_name(f"{path.name}.old")
        saved.write_bytes(old)
        why = f"the old one is {saved.name}"
    writing(file)
    return Step("wrote", str(path), why)
