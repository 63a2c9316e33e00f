"""The home of a demo: created in an empty folder, recognised by its file ``demo.json``."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import UsageError
from dataserver.runtime.heartbeat import write_atomic

STATE = "demo.json"
DAYS, AGENTS, SEED = 21, 12, 1

_SETTINGS = "# Made by `dataserver demo`: a disposable home to try the server.\n"
_INSTANCE = """data_in = "../../data_in"
# A demo's agents send in order: no need to wait long.
settle = 1
"""


@dataclass(frozen=True, slots=True)
class State:
    """The parameters and progress of a demo home; times are epoch seconds.

    Its initial history is from ``begin`` to ``end``; all packets until ``until`` are sent.
    """

    seed: int
    agents: int
    begin: int
    end: int
    until: int


class DemoHome:
    """A home and its state."""

    def __init__(self, home: Home, state: State) -> None:
        self.home = home
        self.state = state

    @property
    def data_in(self) -> Path:
        """The drop directory."""
        return self.home.root / "data_in"

    @property
    def var(self) -> Path:
        """The demo's own files: logs of its processes, files to be uploaded."""
        return self.home.var / "demo"

    def advance(self, until: int) -> None:
        """Save that all packets until ``until`` are sent."""
        self.state = replace(self.state, until=until)
        write_atomic(self.home.root / STATE, json.dumps(asdict(self.state)) + "\n")


@contextmanager
def temporary() -> Iterator[Path]:
    """A temporary folder, removed at the end of the block."""
    path = Path(tempfile.mkdtemp(prefix="dataserver-demo-"))
    try:
        yield path
    finally:
        # A process that was just killed may still be writing.
        for _ in range(3):
            shutil.rmtree(path, ignore_errors=True)


def open_demo(
    root: Path, now: int, *, days: int | None, agents: int | None, seed: int | None
) -> DemoHome:
    """The demo home ``root``: a new one in an empty folder, or the existing one.

    ``days``, ``agents`` and ``seed`` are None for the default, or the existing values.  Raises
    UsageError if ``root`` is not a demo home, or has other values; OSError.
    """
    home = Home(root)
    if root.is_dir() and any(root.iterdir()):
        state = _read(root)
        _check_same(state, root, agents=agents, seed=seed, days=days)
        return DemoHome(home, state)
    begin = now - (days or DAYS) * 86_400
    state = State(SEED if seed is None else seed, agents or AGENTS, begin, now, begin)
    demo = DemoHome(home, state)
    paths = home.instance()
    for folder in (paths.folder, paths.var, demo.data_in, demo.var):
        folder.mkdir(parents=True, exist_ok=True)
    # First, so that it is a demo home even if the rest fails.
    demo.advance(begin)
    home.config.write_text(_SETTINGS, encoding="utf-8")
    paths.config.write_text(_INSTANCE, encoding="utf-8")
    return demo


def _read(root: Path) -> State:
    try:
        found = json.loads((root / STATE).read_text("utf-8"))
        state = State(**{key: int(value) for key, value in found.items()})
    except FileNotFoundError:
        raise UsageError(
            f"{root} is not empty and not a demo home", hint="name an empty folder or a new one"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise UsageError(
            f"{root / STATE} was not written by a demo", hint="name an empty folder or a new one"
        ) from exc
    return state


def _check_same(
    state: State, root: Path, *, agents: int | None, seed: int | None, days: int | None
) -> None:
    made = round((state.end - state.begin) / 86_400)
    for name, asked, has in (
        ("agents", agents, state.agents),
        ("seed", seed, state.seed),
        ("days", days, made),
    ):
        if asked is not None and asked != has:
            raise UsageError(
                f"{root} was made with --{name} {has}, not {asked}",
                hint=f"omit --{name} to continue it, or name an empty folder",
            )
