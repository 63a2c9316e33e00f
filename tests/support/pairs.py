"""Pairs whose files are compared whole: ``tests/keepalived/CASE``, and the shipped one.

After a wanted change ``python -m tests.support.pairs`` writes them all anew; git shows what became
of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.templates import File
from dataserver.vrrp.model import Pair
from dataserver.vrrp.reading import parse
from dataserver.vrrp.renderer import Watched, render_pair

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "keepalived"
NAMES = sorted(path.parent.name for path in CASES.glob("*/pair.toml"))
#: The checkout has SQLite, which a pair refuses.
SHARED_DATABASE = {"DATASERVER_DATABASE": "mysql://dataserver@database.example.org/pandora"}

SIMPLE = (CASES / "unicast" / "pair.toml").read_text("utf-8")


def read_case(name: str) -> Pair:
    """The pair of a case."""
    return parse((CASES / name / "pair.toml").read_text("utf-8"), f"{name}/pair.toml")


def rendered(pair: Pair, home: Path = Path("/nonexistent")) -> list[File]:
    """Its files, for instances at their usual places."""
    watched = [
        Watched(
            name,
            pair.home / "var" / name,
            pair.home / ("data_in" if name == "main" else f"instances/{name}/data_in"),
        )
        for name in pair.instances
    ]
    return render_pair(Home(home), pair, watched)


def write(files: list[File], folder: Path) -> None:
    """Write files as the command does."""
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, "utf-8")
        path.chmod(file.mode)


def _main() -> None:
    for name in NAMES:
        expected = CASES / name / "expected"
        shutil.rmtree(expected, ignore_errors=True)
        write(rendered(read_case(name)), expected)
    command = [sys.executable, "-P", "-m", "dataserver", "--home", str(ROOT)]
    command += ["keepalived", "render"]
    subprocess.run(command, check=True, env={**os.environ, **SHARED_DATABASE})


if __name__ == "__main__":
    _main()
