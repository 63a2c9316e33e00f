"""``dataserver health``: whether this host is fit to hold the address, and if not, why.

Reads the files that the instances write, and tests their drop directories; the database is not
used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import print_json, print_line
from dataserver.cli.program import spelled
from dataserver.config.paths import Home
from dataserver.errors import SpoolError, UsageError
from dataserver.fleet.registry import Registry
from dataserver.vrrp.health import Health, Limits, Verdict, gather, judge, read_result, worst
from dataserver.vrrp.model import Pair, pair_file
from dataserver.vrrp.reading import read_pair

#: The exit codes, by verdict (docs/exit-codes.md).
CODES = {
    Verdict.HEALTHY: 0,
    Verdict.WAITING: 0,
    Verdict.SICK: 1,
    Verdict.FAULT: SpoolError.exit_code,
}


@click.command(cls=Command)
@click.argument("instance", required=False, metavar="[INSTANCE]")
@json_option
@click.pass_context
@pass_app
def health(app: App, context: click.Context, instance: str | None, as_json: bool) -> None:
    """Show whether an instance is healthy, with reasons: the result of keepalived's check.

    Without INSTANCE: all instances named in keepalived/pair.toml, or, without that file, all
    enabled instances. Exit code 0: healthy, also while waiting for the database; 1: sick; 5: no
    file can be created in a drop directory. To test that, a file is created there and removed.

    \b
    Examples:
      dataserver health
      dataserver health main --json
    """
    pair = _pair(app.home)
    if instance:
        names: Sequence[str] = [instance]
    else:
        names = pair.instances if pair else _enabled(app.existing_home())
    limits = Limits(pair.check.disk_warn_percent, pair.check.disk_ok_percent) if pair else Limits()
    found = _look(app, names, limits)
    verdict = worst(each.verdict for each in found)
    if as_json:
        print_json({"verdict": verdict, "instances": [_as_json(each) for each in found]})
    else:
        for each in found:
            reasons = "; ".join(reason.text for reason in each.reasons)
            text = f"{each.verdict}: {reasons}" if reasons else each.verdict
            print_line(f"{each.instance}: {spelled(text)}")
    context.exit(CODES[verdict])


def _pair(home: Home) -> Pair | None:
    path = pair_file(home)
    return read_pair(path) if path.exists() else None


def _look(app: App, names: Sequence[str], limits: Limits) -> list[Health]:
    low: frozenset[str] = frozenset()
    # A low disk stays low until there is more room: the check remembers it.
    with suppress(OSError):
        if (checked := read_result("check-health")) is not None:
            low = checked.low
    found = []
    for name in names:
        app.paths(name)
        settings, paths = app.settings(name)
        found.append(judge(gather(paths, settings.data_in), limits, low))
    return found


def _enabled(home: Home) -> list[str]:
    names = [each.name for each in Registry(home).instances() if each.enabled]
    if not names:
        raise UsageError(f"no instance of {home.root} is enabled", hint="name one, or start one")
    return names


def _as_json(health: Health) -> dict[str, object]:
    return {
        "instance": health.instance,
        "verdict": health.verdict,
        "reasons": [{"verdict": reason.verdict, "text": reason.text} for reason in health.reasons],
    }
