"""How this program was called and installed, for what its user is told to type next."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import dataserver

_NAME = "dataserver"
#: A command as hints name it, and what makes a home or names one itself.
_COMMAND = re.compile(
    rf"(^|[`']|\b(?:run|next|root|or|or ask): ){_NAME} (?=((?:--home|init|demo)\b)|[a-z-])"
)


def spelled(text: str) -> str:
    """``text`` with the commands that it names as they can be typed in this shell.

    In a checkout whose environment is not activated, `dataserver` alone is no command; and what
    was asked of a home that ``--home`` named is to be asked of the same one.
    """
    called, home = _called() or _NAME, _home()

    # Not as a template: a path may hold backslashes.
    def typed(found: re.Match[str]) -> str:
        return f"{found[1]}{called} {'' if found[2] else home}"

    return _COMMAND.sub(typed, text)


def extra(name: str) -> str:
    """The command that installs what the extra ``name`` needs beside this program."""
    source = Path(dataserver.__file__).parents[1]
    pip = shlex.join([sys.executable, "-m", "pip", "install"])
    if (source / "pyproject.toml").exists():
        return f"{pip} --editable {shlex.quote(f'{source}[{name}]')}"
    return f"{pip} 'DIRECTORY[{name}]', where DIRECTORY is a checkout or an unpacked release"


def _called() -> str | None:
    """How it was called, where its name alone does not call it."""
    program = Path(sys.argv[0])
    if program.name != _NAME:
        return None
    found = shutil.which(_NAME)
    if found is not None and program.exists() and program.samefile(found):
        return None
    return shlex.quote(sys.argv[0])


def _home() -> str:
    """The ``--home`` of this call, as it is typed; empty: none."""
    home = None
    for index, argument in enumerate(sys.argv[1:], start=1):
        if argument == "--home":
            home = "".join(sys.argv[index + 1 : index + 2])
        elif argument.startswith("--home="):
            home = argument.removeprefix("--home=")
    return f"--home {shlex.quote(home)} " if home else ""
