"""How this program was called and installed, so that hints name commands that work."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import dataserver

_NAME = "dataserver"
#: A command in a hint; the lookahead finds commands that need no --home of this call.
_COMMAND = re.compile(
    rf"(^|[`']|\b(?:run|next|root|or|or ask): ){_NAME} (?=((?:--home|init|demo)\b)|[a-z-])"
)


def spelled(text: str) -> str:
    """``text`` with its commands as they can be typed in this shell.

    In a checkout whose environment is not activated, `dataserver` alone is not a command; and if
    this call has ``--home``, the commands get the same one.
    """
    called, home = _called() or _NAME, _home()

    # Not as a template: a path may hold backslashes.
    def typed(found: re.Match[str]) -> str:
        return f"{found[1]}{called} {'' if found[2] else home}"

    return _COMMAND.sub(typed, text)


def extra(name: str) -> str:
    """The command that installs the extra ``name`` of this program."""
    source = Path(dataserver.__file__).parents[1]
    pip = shlex.join([sys.executable, "-m", "pip", "install"])
    if (source / "pyproject.toml").exists():
        return f"{pip} --editable {shlex.quote(f'{source}[{name}]')}"
    return f"{pip} 'DIRECTORY[{name}]', where DIRECTORY is a checkout or an unpacked release"


def _called() -> str | None:
    """The path by which this program was called, or None if its name is enough."""
    program = Path(sys.argv[0])
    if program.name != _NAME:
        return None
    found = shutil.which(_NAME)
    if found is not None and program.exists() and program.samefile(found):
        return None
    return shlex.quote(sys.argv[0])


def _home() -> str:
    """The ``--home`` option of this call as it is typed, or an empty text without one."""
    home = None
    for index, argument in enumerate(sys.argv[1:], start=1):
        if argument == "--home":
            home = "".join(sys.argv[index + 1 : index + 2])
        elif argument.startswith("--home="):
            home = argument.removeprefix("--home=")
    return f"--home {shlex.quote(home)} " if home else ""
