"""``dataserver keepalived verify``: do the hosts of the pair match?"""

from __future__ import annotations

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.cli.program import spelled
from dataserver.cli.store import instance_option, reading_store
from dataserver.store.errors import translating
from dataserver.store.layout import reading
from dataserver.store.process_list import processes_seen
from dataserver.store.servers import GIVEN_UP
from dataserver.vrrp.model import pair_file
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.verify import Outcome, compare

_WORDS = {Outcome.EQUAL: "ok", Outcome.DIFFERENT: "DIFFERS", Outcome.UNKNOWN: "UNKNOWN"}


@click.command(cls=Command)
@instance_option
@json_option
@click.pass_context
@pass_app
def verify(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Compare the hosts of the pair: keys, configuration, versions, clocks, pair.toml.

    Each instance that runs says in the shared database what its host has; nothing is asked of
    the other host. What was changed less than a minute ago may not be seen yet. Exit code 1
    unless all was compared and is equal.

    \b
    Examples:
      dataserver keepalived verify
      dataserver keepalived verify --json
    """
    settings, _ = app.settings(instance)
    what = "read what the servers say of themselves"
    with reading_store(app, instance) as store, translating(what), reading(store.engine) as conn:
        seen = processes_seen(conn, store.layout)
    path = pair_file(app.home)
    pair = read_pair(path) if path.exists() else None
    named = [host.name for host in pair.hosts] if pair else []
    live = float(GIVEN_UP * settings.server_keepalive)
    comparison = compare(seen, live, named, pair.instances if pair else ())
    if as_json:
        print_json(
            {
                "equal": comparison.equal,
                "hosts": comparison.hosts,
                "findings": [
                    {"what": f.what, "outcome": f.outcome, "text": f.text}
                    for f in comparison.findings
                ],
            }
        )
    else:
        for finding in comparison.findings:
            print_line(f"{_WORDS[finding.outcome]:<8} {finding.what:<16} {spelled(finding.text)}")
    context.exit(0 if comparison.equal else 1)
