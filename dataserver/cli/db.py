"""``dataserver db``: create the tables of a database, or check it."""

from __future__ import annotations

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.cli.program import spelled
from dataserver.cli.store import instance_option
from dataserver.config.paths import Paths
from dataserver.config.settings import Settings
from dataserver.errors import StoreUnavailable
from dataserver.store import sqlite_file
from dataserver.store.database import shown
from dataserver.store.layout import inspect
from dataserver.store.opening import make_ready, missing_file, open_store, sqlite_path
from dataserver.store.probe import Finding, check


@click.group(cls=Group)
def db() -> None:
    """Create the tables of the database, or check it.

    \b
    Examples:
      dataserver db check
      dataserver db create
    """


@db.command(cls=Command)
@instance_option
@json_option
@pass_app
def create(app: App, instance: str, as_json: bool) -> None:
    """Prepare the configured database, as the first start of an instance does.

    An empty database gets all tables, an existing Pandora FMS database only this server's own;
    existing tables are not changed. On MySQL and MariaDB the database itself and its user must
    exist.

    \b
    Examples:
      dataserver db create
      dataserver db create --json
    """
    settings, paths = app.settings(instance)
    engine = open_store(settings, paths.home)
    try:
        if (file := sqlite_path(engine)) is not None:
            sqlite_file.forget_missing(file)
        before = inspect(engine)
        after = make_ready(settings, engine)
    finally:
        engine.dispose()
    made = sorted(after.tables - before.tables)
    where = shown(settings.database)
    if as_json:
        print_json({"database": where, "kind": after.kind, "created": made})
    elif made:
        print_line(f"{where}: created {len(made)} tables: {', '.join(made)}")
    else:
        print_line(f"{where}: nothing to create, all tables exist")


@db.command(cls=Command, name="check")
@instance_option
@json_option
@click.pass_context
@pass_app
def check_(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Check whether the configured database is suitable; exit code 1 if there is any problem.

    Changes nothing. A database that cannot be reached is an error (exit code 6).

    \b
    Examples:
      dataserver db check
      dataserver db check --json
    """
    settings, paths = app.settings(instance)
    findings = _findings(settings, paths)
    ok = all(finding.ok for finding in findings)
    if as_json:
        checks = [{"name": each.name, "ok": each.ok, "text": each.text} for each in findings]
        print_json({"database": shown(settings.database), "ok": ok, "checks": checks})
    else:
        for finding in findings:
            print_line(
                f"{'ok' if finding.ok else 'PROBLEM':<8} {finding.name:<18} {spelled(finding.text)}"
            )
    context.exit(0 if ok else 1)


def _findings(settings: Settings, paths: Paths) -> list[Finding]:
    missing = missing_file(settings, paths.home)
    if missing is not None:
        try:
            sqlite_file.must_not_be_missing(missing)
        except StoreUnavailable as error:
            return [Finding("file", False, str(error))]
        return [Finding("database", True, f"{missing}: the first start creates it")]
    engine = open_store(settings, paths.home, readonly=True)
    try:
        findings = check(engine, accept_no_alerts=settings.accept_no_alerts)
        if (file := sqlite_path(engine)) is not None:
            problem = sqlite_file.damage(file)
            text = f"damaged: {problem}; {sqlite_file.RESTORING}" if problem else "whole"
            findings.append(Finding("file", problem is None, text))
        return findings
    finally:
        engine.dispose()
