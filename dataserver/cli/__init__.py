"""The command ``dataserver``: which commands there are and where each one's code is.

Each command's module is imported only when the command is used: ``dataserver status`` must not
pay for the parser and the database.
"""

from __future__ import annotations

from dataserver.cli.base import LazyGroup

#: Command to "module:attribute", in the order of the help.
COMMANDS = {
    "init": "dataserver.cli.init:init",
    "demo": "dataserver.cli.demo:demo",
    "up": "dataserver.cli.up:up",
    "run": "dataserver.cli.run:run",
    "check": "dataserver.cli.check:check",
    "instances": "dataserver.cli.instances:instances",
    "status": "dataserver.cli.status:status",
    "health": "dataserver.cli.health:health",
    "keepalived": "dataserver.cli.keepalived:keepalived",
    "config": "dataserver.cli.config:config",
    "packet": "dataserver.cli.packet:packet",
    "rejected": "dataserver.cli.rejected:rejected",
    "refused": "dataserver.cli.refused:refused",
    "agents": "dataserver.cli.agents:agents",
    "modules": "dataserver.cli.modules:modules",
    "events": "dataserver.cli.events:events",
    "series": "dataserver.cli.series:series",
    "graph": "dataserver.cli.graph:graph",
    "console": "dataserver.cli.console:console",
    "uploads": "dataserver.cli.uploads:uploads",
    "db": "dataserver.cli.db:db",
}

main = LazyGroup(
    name="dataserver",
    commands_at=COMMANDS,
    help="""Stores the packets that agents drop into a directory in a database.

    No packet is lost and none is stored twice. The home (settings, instances, logs and status
    files) is --home, $DATASERVER_HOME, the current directory if it contains dataserver.toml, or
    /var/lib/dataserver.

    \b
    Examples:
      dataserver init /srv/dataserver
      dataserver run
      dataserver status
    """,
)
