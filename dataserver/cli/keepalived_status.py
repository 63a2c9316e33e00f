"""``dataserver keepalived status``: has this host the address, since when, what say the checks."""

from __future__ import annotations

import time
from typing import Any

import click

from dataserver.cli.base import App, Command, json_option, pass_app
from dataserver.cli.output import local_time, print_json, print_line
from dataserver.moments import duration_text
from dataserver.vrrp.health import Checked
from dataserver.vrrp.model import pair_file
from dataserver.vrrp.reading import read_pair
from dataserver.vrrp.status import Standing, look


@click.command(cls=Command)
@json_option
@click.pass_context
@pass_app
def status(app: App, context: click.Context, as_json: bool) -> None:
    """Show who has the address, since when, and what the checks say; on one of the hosts.

    The exit code is 0 if all is as it should be, with or without the address, else 1.

    \b
    Examples:
      dataserver keepalived status
      dataserver keepalived status --json
    """
    standing = look(read_pair(pair_file(app.home)))
    problems = list(standing.problems())
    if as_json:
        print_json(_as_json(standing, problems))
    else:
        for key, value in _lines(standing).items():
            print_line(f"{key + ':':<11} {value}")
        for problem in problems:
            print_line(f"problem:    {problem}")
    context.exit(1 if problems else 0)


def _lines(standing: Standing) -> dict[str, str]:
    known = standing.known
    if known is None:
        state = "unknown"
    else:
        ago = duration_text(time.time() - known.since)
        state = f"{known.state} since {local_time(known.since)} ({ago})"
    return {
        "host": f"{standing.host.name} ({standing.host.address.ip})",
        "address": _whereabouts(standing),
        "state": state,
        "keepalived": "does not run" if standing.pid is None else f"runs (process {standing.pid})",
        "health": _checked(standing.health),
        "data_in": _checked(standing.drop),
    }


def _whereabouts(standing: Standing) -> str:
    addresses = ", ".join(str(each.ip) for each in standing.pair.virtual_addresses)
    if standing.here:
        here = ", ".join(f"{address} on {interface}" for address, interface in standing.here)
        return f"here: {here}"
    twin = standing.pair.twin(standing.host).name
    if standing.knows and standing.known and standing.known.state == "BACKUP":
        # A backup hears the other one, or would be MASTER itself.
        return f"{addresses} is on {twin}"
    return f"{addresses} is not here; ask {twin}"


def _checked(checked: Checked | None) -> str:
    if checked is None:
        return "unknown"
    words = {"takes": "takes files", "fault": "takes no files", "waiting": "healthy"}
    ago = "" if checked.age is None else f", {duration_text(checked.age)} ago"
    text = f": {checked.text}" if checked.text else ""
    return f"{words.get(checked.result, checked.result)}{text}{ago}"


def _as_json(standing: Standing, problems: list[str]) -> dict[str, Any]:
    known = standing.known
    return {
        "host": standing.host.name,
        "twin": standing.pair.twin(standing.host).name,
        "addresses": [str(each.ip) for each in standing.pair.virtual_addresses],
        "here": [{"address": a, "interface": i} for a, i in standing.here],
        "has_address": standing.has_address,
        "state": known.state if known else None,
        "since": known.since if known else None,
        "priority": known.priority if known else None,
        "keepalived": standing.pid,
        "notify": standing.is_told,
        "health": _checked_json(standing.health),
        "drop": _checked_json(standing.drop),
        "problems": problems,
    }


def _checked_json(checked: Checked | None) -> dict[str, Any] | None:
    if checked is None:
        return None
    return {"result": checked.result, "text": checked.text, "age": checked.age}
