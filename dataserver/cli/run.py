"""``dataserver run``: run one instance in the foreground."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click

from dataserver import lifeline, logs, sd_notify
from dataserver.cli.base import (
    INTERNAL_ERROR,
    App,
    Command,
    instance_argument,
    json_option,
    pass_app,
)
from dataserver.cli.live import LiveLine, LiveLineHandler
from dataserver.cli.output import print_json, print_line
from dataserver.config.paths import Paths
from dataserver.config.settings import Settings
from dataserver.errors import StoreError
from dataserver.ingest.worker import Summary
from dataserver.ingest.worker import run as run_worker
from dataserver.runtime.heartbeat import Status

log = logging.getLogger(__name__)


@click.command(cls=Command)
@instance_argument
@click.option("--once", is_flag=True, help="Process the queued packets, print a summary, and exit.")
@click.option("--child-of", type=int, hidden=True, help="End with this process.")
@json_option
@click.pass_context
@pass_app
def run(
    app: App, context: click.Context, instance: str, once: bool, child_of: int | None, as_json: bool
) -> None:
    """Run an instance (default: main) in the foreground.

    SIGTERM or Ctrl-C ends it after the current batch; SIGHUP reloads the configuration. With
    --once it does not wait: queued packets are stored in order, incomplete ones stay in data_in
    unless they are old.

    \b
    Examples:
      dataserver run
      dataserver run --once --json
      DATASERVER_LOG_LEVEL=debug dataserver run main
    """
    if child_of is not None:
        lifeline.die_with_parent(child_of)
    notify = sd_notify.notifier(os.environ)
    sd_notify.forget()
    settings, paths = app.settings(instance)

    def reread() -> Settings:
        fresh, _ = app.settings(instance)
        logs.set_level(fresh.log_level)
        return fresh

    paths.var.mkdir(mode=0o750, parents=True, exist_ok=True)
    with _showing(settings, paths, live=not once) as show:
        if not once:
            # Only "starting": another process may run it, or the database be unavailable.
            log.info("starting instance %s on %s", paths.name, settings.data_in)
        summary = run_worker(settings, paths, once=once, reload=reread, show=show, notify=notify)
        if child_of is not None:
            log.info("%s", _text(summary))
            return
    if once and as_json:
        print_json(asdict(summary))
    else:
        print_line(_text(summary))
    if once and summary.failing:
        context.exit(INTERNAL_ERROR if summary.internal_error else StoreError.exit_code)


@contextmanager
def _showing(
    settings: Settings, paths: Paths, *, live: bool
) -> Iterator[Callable[[Status], None] | None]:
    """Set up logging: above a live line on a terminal, as JSON lines anywhere else."""
    if not sys.stderr.isatty():
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        logs.set_up(settings.log_level, handler, logs.JsonLines({"instance": paths.name}))
        yield None
        return
    line = LiveLine(sys.stderr, shutil.get_terminal_size().columns)
    logs.set_up(settings.log_level, LiveLineHandler(line), logs.TerminalLines())
    try:
        yield line.update
    finally:
        line.finish()


def _text(summary: Summary) -> str:
    share = 100 * summary.stored / summary.samples if summary.samples else 0
    parts = [
        f"{summary.packets} packets in {summary.seconds:.1f} s",
        f"{summary.samples} values, {summary.stored} stored ({share:.0f} %)",
    ]
    for count, word in (
        (summary.duplicates, "duplicates"),
        (summary.late, "late"),
        (summary.late_counters_dropped, "late counter readings dropped"),
        (summary.repaired, "repaired"),
        (summary.refused, "values refused"),
        (summary.ignored, "of disabled agents"),
        (summary.rejected, "rejected"),
        (summary.waiting, "not complete yet"),
        (summary.failing, "could not be stored yet"),
    ):
        if count:
            parts.append(f"{count} {word}")
    return ", ".join(parts)
