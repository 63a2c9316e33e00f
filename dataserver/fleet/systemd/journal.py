"""What instances said, from systemd's journal.

Source: journalctl(1), systemd.journal-fields(7).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress

from dataserver.errors import DataserverError
from dataserver.fleet.systemd import programs
from dataserver.fleet.systemd.names import unit

#: How much of a last word is kept, in characters.
_LAST = 300


def follow(name: str, lines: int, *, follow: bool) -> Iterator[str]:
    """The last ``lines`` of the instance ``name``, and of systemd about it; then those to come.

    Raises DataserverError where the journal cannot be read.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}"]
    command += [f"--unit={unit(name)}", *(["--follow"] if follow else [])]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=programs.environment(),
        )
    except OSError as exc:
        raise DataserverError(f"journalctl cannot be run: {exc.strerror}") from exc
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                yield line.rstrip(b"\n").decode("utf-8", "surrogateescape")
            said = process.stderr.read()
            code = process.wait()
        finally:
            # Nothing where it has ended; else nobody reads it any more.
            process.kill()
    if code:
        raise programs.failed(("journalctl",), said, code)


def last_words(names: Sequence[str]) -> dict[str, str]:
    """The last line that each instance itself said, by name, as far as it can be read."""
    if not names:
        return {}
    by_unit = {unit(name): name for name in names}
    matches = [f"_SYSTEMD_UNIT={each}" for each in by_unit]
    options = ["--quiet", "--no-pager", "--output=json", "--lines=500"]
    fields = "--output-fields=MESSAGE,_SYSTEMD_UNIT"
    try:
        said = programs.run("journalctl", *options, fields, *matches)
    except DataserverError:
        # Not for everybody; what systemd says of it is for all.
        return {}
    words = {}
    for line in said.splitlines():
        entry = json.loads(line)
        # A line that is no UTF-8 comes as a list of bytes.
        if isinstance(text := entry.get("MESSAGE"), str) and entry.get("_SYSTEMD_UNIT") in by_unit:
            words[by_unit[entry["_SYSTEMD_UNIT"]]] = _message(text)
    return words


def _message(text: str) -> str:
    """What a line says, without what else is in it."""
    with suppress(ValueError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    return text.strip().removeprefix("dataserver: ")[:_LAST]
