"""``dataserver up``: run all enabled instances, supervised, in the foreground."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import click

from dataserver import logs
from dataserver.cli.base import App, Command, pass_app
from dataserver.cli.live import LiveLine, LiveLineHandler
from dataserver.config.paths import Home
from dataserver.fleet.model import Managed, RunState
from dataserver.fleet.registry import Registry
from dataserver.fleet.supervision.loop import Up
from dataserver.fleet.supervision.processes import LineHandler
from dataserver.runtime.heartbeat import Status


@click.command(cls=Command)
@pass_app
def up(app: App) -> None:
    """Run all enabled instances of the home in the foreground.

    Each runs in its own process, which is restarted when it ends or is stuck. Instances that are
    spawned, changed, stopped or removed meanwhile are noticed. SIGTERM or Ctrl-C stops all
    gracefully, a second one kills them. SIGHUP checks the folders at once.

    \b
    Examples:
      dataserver up
      dataserver --home /srv/dataserver up
    """
    home = app.existing_home()
    with _output(home) as output:
        Up(
            home,
            Registry(home).instances,
            environment=os.environ,
            on_line=output.on_line,
            on_state=output.on_state,
        ).run()


class _Output(NamedTuple):
    on_line: LineHandler
    on_state: Callable[[Mapping[str, Managed]], None]


@contextmanager
def _output(home: Home) -> Iterator[_Output]:
    """Set up logging: above a live line on a terminal, as JSON lines anywhere else."""
    level = os.environ.get("DATASERVER_LOG_LEVEL", "info")
    level = level if level in ("debug", "info", "warning", "error") else "info"
    if not sys.stderr.isatty():
        logs.set_up(level, logging.StreamHandler(sys.stderr), logs.JsonLines({}))
        yield _Output(_pass_on, lambda _: None)
        return
    line = LiveLine(sys.stderr, shutil.get_terminal_size().columns)
    logs.set_up(level, LiveLineHandler(line), logs.TerminalLines())
    summary = _Summary(home, line)
    try:
        yield _Output(
            lambda name, text: line.above(logs.terminal_line(text, f"{name} ")), summary.show
        )
    finally:
        line.finish()


def _pass_on(name: str, text: str) -> None:
    """Print a log line of an instance unchanged, and any other line as an error of its log."""
    if not text.startswith('{"time"'):
        when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = json.dumps({"time": when, "level": "error", "message": text, "instance": name})
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class _Summary:
    """The live line of all instances: how many run, their total rate, and which do not run."""

    def __init__(self, home: Home, line: LiveLine) -> None:
        self._home = home
        self._line = line
        self._next = 0.0

    def show(self, managed: Mapping[str, Managed]) -> None:
        """Show the line, at most once a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        self._line.show(" | ".join(self._parts(managed)))

    def _parts(self, managed: Mapping[str, Managed]) -> Iterator[str]:
        running = [name for name, each in managed.items() if each.state is RunState.RUNNING]
        statuses = [status for name in running if (status := self._status(name)) is not None]
        yield f"{len(running)} of {len(managed)} running"
        yield f"{sum(status.packets_per_second for status in statuses):.0f} packets/s"
        yield f"queue {sum(status.gauges.get('queue', 0) for status in statuses)}"
        for name, each in managed.items():
            if each.state is not RunState.RUNNING:
                yield f"{name} {each.state}"
        for status in statuses:
            if status.database_error:
                yield f"{status.instance}: {status.database_error}"

    def _status(self, name: str) -> Status | None:
        try:
            return Status.read(self._home.instance(name).status)
        except OSError:
            return None
