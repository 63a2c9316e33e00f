"""``dataserver health``: is this host fit to hold the address, and if not, why?

Reads what the instances write, and tries their drop directories; no database is asked.
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
    """Say whether an instance is healthy, with reasons: what keepalived's check sees.

    Without INSTANCE: all that keepalived/pair.toml wants healthy, or, where there is none, all
    that are meant to run. Exit code 0: healthy, also while it waits for the database; 1: sick;
    5: a drop directory takes no files. To find that out, a file is made there and removed.

    \b
    Examples:
      dataserver health
      dataserver health main --json
    """
    pair = _pair(app.home)
    if instance:
        names: Sequence[str] = [instance]
    else:
        names = pair.instances if pair else _enabled(app.home)
    limits = Limits(pair.check.disk_warn_percent, pair.check.disk_ok_percent) if pair else Limits()
    found = _look(app, names, limits)
    verdict = worst(each.verdict for each in found)
    if as_json:
        print_json({"verdict": verdict, "instances": [_as_json(each) for each in found]})
    else:
        for each in found:
            said = ": ".join([each.verdict, *filter(None, ["; ".join(_texts(each))])])
            print_line(f"{each.instance}: {spelled(said)}")
    context.exit(CODES[verdict])


def _pair(home: Home) -> Pair | None:
    path = pair_file(home)
    return read_pair(path) if path.exists() else None


def _look(app: App, names: Sequence[str], limits: Limits) -> list[Health]:
    low: frozenset[str] = frozenset()
    # What was low stays so for a while: the check remembers it.
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
    if not home.instance_names():
        home.existing()
    names = [each.name for each in Registry(home).instances() if each.enabled]
    if not names:
        raise UsageError(
            f"no instance of {home.root} is meant to run", hint="name one, or start one"
        )
    return names


def _texts(health: Health) -> list[str]:
    return [reason.text for reason in health.reasons]


def _as_json(health: Health) -> dict[str, object]:
    return {
        "instance": health.instance,
        "verdict": health.verdict,
        "reasons": [{"verdict": reason.verdict, "text": reason.text} for reason in health.reasons],
    }
