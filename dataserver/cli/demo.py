"""``dataserver demo``: a disposable home with made-up history, and a console that shows it."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from dataserver import logs
from dataserver.cli.base import Command
from dataserver.cli.live import LiveLine
from dataserver.cli.output import print_line
from dataserver.cli.program import extra, spelled
from dataserver.config.load import PREFIX, load
from dataserver.demo.children import Child, Children, ShutdownSignal
from dataserver.demo.filling import Filled, Progress, fill, senders
from dataserver.demo.home import AGENTS, DAYS, SEED, DemoHome, open_demo, temporary
from dataserver.demo.running import HOST, PORT, Running, port_is_free
from dataserver.demo.uploading import Uploader
from dataserver.errors import UsageError
from dataserver.rules.moments import duration_text

_MOST_DAYS, _MOST_AGENTS = 400, 500


@click.command(cls=Command)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--days",
    type=click.IntRange(1, _MOST_DAYS),
    metavar="N",
    help=f"Days of history (default: {DAYS}).",
)
@click.option(
    "--agents",
    type=click.IntRange(1, _MOST_AGENTS),
    metavar="N",
    help=f"Number of agents (default: {AGENTS}).",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Where the console listens (default: {HOST}:{PORT}, or another port if that is taken).",
)
@click.option("--fill-only", is_flag=True, help="Create the history in DIR and exit.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    metavar="N",
    help=f"Seed of the made-up values and incidents (default: {SEED}).",
)
def demo(
    directory: Path | None,
    days: int | None,
    agents: int | None,
    listen: str | None,
    fill_only: bool,
    seed: int | None,
) -> None:
    """Try the server: a home with weeks of made-up data, and a console that shows it.

    The packets are made up, everything else is real: they pass through the drop directory of a
    home of their own. Then the server and the console run on that home, and new packets keep
    coming, until Ctrl-C. The home is temporary and removed at the end; with DIR (empty, or an
    earlier demo's) it is kept and can be continued. Settings in the environment are ignored.

    \b
    Examples:
      dataserver demo
      dataserver demo /tmp/shop --days 60
      dataserver demo /tmp/shop --fill-only
    """
    if fill_only and directory is None:
        raise UsageError(
            "--fill-only needs a directory: a temporary home would be removed at once",
            hint="name a DIR to fill",
        )
    if not fill_only:
        _check_console()
    # The environment may configure a real database: the demo must not use it.
    environment = {key: text for key, text in os.environ.items() if not key.startswith(PREFIX)}
    with ExitStack() as stack:
        shutdown = stack.enter_context(ShutdownSignal())
        root = stack.enter_context(temporary()) if directory is None else Path.cwd() / directory
        home = open_demo(root, int(time.time()), days=days, agents=agents, seed=seed)
        print_line(f"demo home {root}{' (removed at the end)' if directory is None else ''}")
        children = stack.enter_context(Children(lambda: shutdown.is_urgent))
        running = Running(home, children, shutdown, environment)
        console = None if fill_only else running.start("console", "--listen", _place(listen))
        if _fill(home, environment, lambda: _is_over(running, shutdown)) and console is not None:
            _run(running, home, console, environment, kept=directory is not None)


def _check_console() -> None:
    """Raise UsageError before anything is created if the console cannot run."""
    if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn", "bcrypt")):
        raise UsageError(
            "the demo's console is not installed",
            hint=f"create only the history, with --fill-only, or install it: {extra('console')}",
        )


def _place(listen: str | None) -> str:
    if listen is not None:
        return listen
    if port_is_free():
        return f"{HOST}:{PORT}"
    print_line(f"port {PORT} is in use: the console gets another one")
    return f"{HOST}:0"


def _is_over(running: Running, shutdown: ShutdownSignal) -> bool:
    """Whether to stop filling; NotRunning if the console has ended."""
    running.check()
    return shutdown.is_requested


def _fill(home: DemoHome, environment: dict[str, str], stopping: Callable[[], bool]) -> bool:
    """Fill up to now; False if stopped before that."""
    paths = home.home.instance()
    log = logging.FileHandler(home.var / "fill.log", encoding="utf-8", delay=True)
    logs.set_up("warning", log, logs.JsonLines({"instance": paths.name}))
    try:
        with _progress(home) as show:
            filled = fill(
                home, int(time.time()), environment=environment, show=show, stopping=stopping
            )
    finally:
        log.close()
    print_line(_summary(filled))
    return filled.whole


@contextmanager
def _progress(home: DemoHome) -> Iterator[Callable[[Progress], None]]:
    """On a terminal, a line that shows the progress."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    line = LiveLine(sys.stderr, shutil.get_terminal_size().columns)
    began, now = home.state.until, time.time()
    shown = float("-inf")

    def show(progress: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown < 0.1:
            return
        shown = time.monotonic()
        done = (progress.time - began) / max(1.0, now - began)
        left = duration_text(now - progress.time)
        line.show(f"filling: {100 * done:.0f} % | {progress.packets} packets | {left} before now")

    try:
        yield show
    finally:
        line.finish()


def _summary(filled: Filled) -> str:
    parts = [
        f"{filled.packets} packets in {filled.seconds:.1f} s",
        f"{filled.values} values, {filled.stored} stored",
        f"{filled.rejected} rejected",
    ]
    return ", ".join(parts) + ("" if filled.whole else "; stopped before the end")


def _run(
    running: Running, home: DemoHome, console: Child, environment: dict[str, str], *, kept: bool
) -> None:
    running.start("up")
    address = running.address(console)
    if address is None:
        return
    print_line("new packets keep coming until Ctrl-C; open")
    print_line(address)
    if kept:
        print_line(spelled(f"or run: dataserver --home {home.home.root} agents"))
    settings = load(home.home.instance(), environment)
    uploader = Uploader(settings.data_in, home.var / "spare")
    try:
        running.keep_sending(senders(home.state, settings.zone(environment)), uploader)
    finally:
        uploader.close()
