"""``dataserver console``: the read-only web application."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from dataserver import logs
from dataserver.cli.base import App, Command, pass_app
from dataserver.cli.output import print_line
from dataserver.cli.program import extra
from dataserver.cli.store import instance_option
from dataserver.config.load import load_for_reading
from dataserver.errors import UsageError

#: In the home: the users file if --users is not given.
_USERS = "console.users"


@click.command(cls=Command)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 is any free one.",
)
@click.option(
    "--users",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Users who may log in (htpasswd, bcrypt; default: HOME/console.users if it exists).",
)
@click.option(
    "--host",
    "names",
    multiple=True,
    metavar="NAME",
    help="A host name under which a proxy forwards requests; may be repeated.",
)
@instance_option
@pass_app
def console(
    app: App, listen: str, users: Path | None, names: tuple[str, ...], instance: str
) -> None:
    """Serve servers, agents, graphs and events to browsers, read-only.

    Any number of consoles may show one database. On an address that others can reach, users
    must log in: create the users file with `htpasswd -B -c console.users NAME` in the home.
    docs/console.md describes a reverse proxy with TLS.

    \b
    Examples:
      dataserver console
      dataserver console --listen 127.0.0.1:9000
      dataserver console --listen 0.0.0.0:8080 --users /etc/dataserver/console.users
    """
    try:
        # Imported here: its libraries are an extra.
        from dataserver.console.serving import parse_address, serve  # noqa: PLC0415
        from dataserver.console.source import Source  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("dataserver"):
            raise
        raise UsageError(
            f"the console needs {exc.name}, which is not installed",
            hint=f"install it: {extra('console')}",
        ) from exc
    paths = app.home.instance(instance)
    load_for_reading(paths, os.environ)
    address = parse_address(listen)
    if users is None and (app.home.root / _USERS).exists():
        users = app.home.root / _USERS
    handler = logging.StreamHandler(sys.stderr)
    logs.set_up("info", handler, logs.JsonLines({"console": listen}))
    # Warnings and errors of the libraries get the same format.
    logging.getLogger().handlers[:] = [handler]
    serve(
        Source(app.home, os.environ, paths.name),
        address,
        users,
        names,
        lambda url: print_line(f"console: {url}"),
    )
