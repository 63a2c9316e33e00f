"""``dataserver status``: whether an instance runs, and its figures.

Reads only the files that the instance itself writes into ``var/NAME/``: it works while the
database hangs, and after the instance died it shows its last state.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from dataserver.cli.base import App, Command, instance_argument, json_option, pass_app
from dataserver.cli.output import local_time, print_json, print_line
from dataserver.cli.program import spelled
from dataserver.rules.moments import duration_text
from dataserver.runtime.heartbeat import Beat, State, Status

#: Exit code if the instance does not run, or is stuck.
NOT_RUNNING = 7
#: What the drop directory contains besides packets: several entries, or one.
_ENTRIES = ("non-packet entries, left alone", "non-packet entry, left alone")


@click.command(cls=Command)
@instance_argument
@json_option
@click.pass_context
@pass_app
def status(app: App, context: click.Context, instance: str, as_json: bool) -> None:
    """Show the state of an instance (default: main); exit code 7 unless it runs.

    \b
    Examples:
      dataserver status
      dataserver status main --json
    """
    paths = app.paths(instance)
    beat, written = Beat.read(paths.heartbeat), Status.read(paths.status)
    now = time.time()
    state = beat.state(now) if beat else State.STOPPED
    if as_json:
        print_json(
            {
                "instance": instance,
                "state": state,
                "heartbeat": asdict(beat) if beat else None,
                "status": asdict(written) if written else None,
            }
        )
    else:
        for name, text in _lines(instance, state, beat, written, now):
            print_line(f"{name + ':':<10} {spelled(text)}")
    context.exit(0 if state is State.RUNNING else NOT_RUNNING)


def _lines(
    instance: str, state: State, beat: Beat | None, status: Status | None, now: float
) -> list[tuple[str, str]]:
    lines = [(instance, _state(state, beat))]
    if status is None:
        return lines
    if state is not State.RUNNING:
        lines.append(("as of", f"{local_time(status.written)} (what follows was true then)"))
    counters, gauges = status.counters, status.gauges
    lines.append(("database", _database(status, now)))
    lines += [
        (what, f"for {duration_text(now - float(found.get('since') or now))}: {found.get('error')}")
        for what, found in status.troubles.items()
    ]
    lines += [
        ("queue", _queue(gauges)),
        (
            "rates",
            f"{status.packets_per_second:.1f} packets/s, {status.values_per_second:.1f} values/s "
            "over the last minute",
        ),
        ("last", _last(status)),
        (
            "taken",
            f"{counters['packets']} packets ({counters['late']} late, {counters['duplicates']} "
            f"again, {sum(counters['repaired'].values())} repaired), {counters['samples']} "
            f"values, {counters['stored']} of them new",
        ),
        ("rejected", _rejected(counters, gauges)),
    ]
    if refused := counters.get("refused_by_reason"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in refused.items())
        lines.append(("refused", f"{reasons} since the start: see `dataserver refused`"))
    return lines + [("cannot open", f"{name}: {why}") for name, why in status.unreadable.items()]


def _state(state: State, beat: Beat | None) -> str:
    if beat is None:
        return "has not run here yet"
    if state is State.RUNNING:
        return f"running, {beat.phase} for {duration_text(beat.phase_seconds)}, pid {beat.pid}"
    if state is State.STUCK:
        return f"stuck: pid {beat.pid} exists, last heartbeat {local_time(beat.time)}"
    if state is State.DEAD:
        return f"dead: pid {beat.pid} ended unexpectedly, last heartbeat {local_time(beat.time)}"
    return f"stopped {local_time(beat.time)}"


def _database(status: Status, now: float) -> str:
    if status.database_error is None:
        return f"{status.database}, in use"
    since = status.database_down_since or now
    return (
        f"{status.database}, unavailable for {duration_text(now - since)}: {status.database_error}"
    )


def _queue(gauges: dict[str, float]) -> str:
    text = _files(gauges["queue"])
    if gauges["queue"]:
        text += f", the oldest {duration_text(gauges['oldest_age_seconds'])} old"
    held = "held until their agent's backlog has settled"
    if until := gauges.get("held_until_time_seconds"):
        held = f"held until {local_time(until)}, when their agent's backlog has settled"
    parts = [
        f"{gauges[key]} {word}"
        for key, word in (
            ("held", held),
            ("waiting", "not complete yet"),
            ("unreadable", "unreadable"),
        )
        if gauges[key]
    ]
    if foreign := gauges.get("foreign"):
        parts.append(f"besides {foreign} {_ENTRIES[foreign == 1]}")
    return f"{text} ({', '.join(parts)})" if parts else text


def _files(count: float) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"


def _last(status: Status) -> str:
    if status.last_packet_agent is None:
        return "no packet since the start"
    if status.last_packet_time is None:
        return f"packet of {status.last_packet_agent}"
    return f"packet of {status.last_packet_agent}, from {local_time(status.last_packet_time)}"


def _rejected(counters: dict[str, dict[str, int]], gauges: dict[str, float]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in counters["rejected"].items())
    kept = f"{_files(gauges['rejected_files'])} kept"
    return f"{reasons} since the start, {kept}" if reasons else f"none since the start, {kept}"
