"""What all tests share: no settings from outside, a fresh home, the installed command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dataserver.home import Home

#: The command as it was installed, beside the interpreter that runs the tests.
COMMAND = Path(sys.executable).with_name("dataserver")

# Started in the background of a script the tests inherit that Ctrl-C is ignored, and so would all
# that they start; a handler, whichever, is the default again in a new program.
signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a data server of their own."""
    for name in list(os.environ):
        if name.startswith("DATASERVER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with the instance `main` and nothing set but its drop directory."""
    home = Home(tmp_path / "home")
    main = home.instance()
    main.folder.mkdir(parents=True)
    main.config.write_text('data_in = "../../data_in"\n')
    (home.root / "data_in").mkdir()
    return home


@pytest.fixture
def dataserver(tmp_path: Path) -> Run:
    """Run the installed command as a user would, in an empty current directory."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        command = [str(COMMAND), *map(str, args)]
        settings = {"cwd": here, "timeout": 60, "text": True, "capture_output": True, **options}
        return subprocess.run(command, check=False, **settings)

    return run
