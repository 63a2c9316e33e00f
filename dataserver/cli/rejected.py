"""``dataserver rejected``: list, show, retry and drop rejected packets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app, print_error
from dataserver.cli.output import local_time, print_json, print_line, print_table
from dataserver.config.paths import MAIN
from dataserver.errors import Reason, UsageError
from dataserver.spool.rejected import Rejected, RejectedPacket

#: How much of a packet `show` prints, in bytes.
_EXCERPT = 1000

_instance_option = click.option(
    "--instance", default=MAIN, metavar="NAME", help="Packets of this instance (default: main)."
)
_ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...")
_all_option = click.option("--all", "every", is_flag=True, help="All rejected packets.")
_reason_option = click.option(
    "--reason",
    type=click.Choice([reason.value for reason in Reason]),
    help="All packets with this reason.",
)


@click.group(cls=Group)
def rejected() -> None:
    """Rejected packets, each with its reason.

    \b
    Examples:
      dataserver rejected list
      dataserver rejected show 1767225600000-1a2b3c-clock
      dataserver rejected retry --reason clock
    """


@rejected.command(cls=Command, name="list")
@_instance_option
@_reason_option
@json_option
@pass_app
def list_(app: App, instance: str, reason: str | None, as_json: bool) -> None:
    """List rejected packets, oldest first.

    On a terminal the middle of a long name is left out; through a pipe and with --json names are
    complete.

    \b
    Examples:
      dataserver rejected list
      dataserver rejected list --reason clock --json
    """
    packets = [
        packet for packet in _folder(app, instance).list() if reason in (None, packet.reason)
    ]
    if as_json:
        print_json([_as_json(packet) for packet in packets])
    elif packets:
        print_table(
            ("ID", "WHEN", "AGENT", "BYTES", "FILE", "WHY"),
            [(p.id, local_time(p.when), p.agent or "-", p.size, p.name, p.detail) for p in packets],
        )
    else:
        print_line("none")


@rejected.command(cls=Command)
@click.argument("rid", metavar="ID")
@_instance_option
@click.option("--content", is_flag=True, help="Write the packet itself to stdout, unchanged.")
@json_option
@pass_app
def show(app: App, rid: str, instance: str, content: bool, as_json: bool) -> None:
    """Show a rejected packet: the reason, and its content.

    \b
    Examples:
      dataserver rejected show 1767225600000-1a2b3c-clock
      dataserver rejected show 1767225600000-1a2b3c-clock --content > packet.xml
    """
    folder = _folder(app, instance)
    packet = folder.show(rid)
    if content:
        for piece in folder.pieces(rid):
            sys.stdout.buffer.write(piece)
    elif as_json:
        print_json(_as_json(packet))
    else:
        times = {"mtime": local_time(packet.mtime), "when": local_time(packet.when)}
        for key, value in (_as_json(packet) | times).items():
            print_line(f"{key + ':':<8} {'-' if value is None else value}")
        _print_excerpt(folder.content(rid, _EXCERPT), packet.size)


@rejected.command(cls=Command)
@_ids_argument
@_instance_option
@_all_option
@_reason_option
@click.pass_context
@pass_app
def retry(
    app: App,
    context: click.Context,
    ids: Sequence[str],
    instance: str,
    every: bool,
    reason: str | None,
) -> None:
    """Move packets back into the drop directory, to be stored again.

    A packet that cannot be moved (a file of its name exists there) is reported and kept, and
    the exit code is 2; the others are moved all the same.

    \b
    Examples:
      dataserver rejected retry 1767225600000-1a2b3c-clock
      dataserver rejected retry --reason clock
    """
    settings, paths = app.settings(instance)
    folder = Rejected(paths.rejected)

    def put_back(rid: str) -> str:
        return f"{rid}: back in {settings.data_in} as {folder.retry(rid, settings.data_in)}"

    context.exit(_each(_chosen(folder, ids, every, reason), put_back))


@rejected.command(cls=Command)
@_ids_argument
@_instance_option
@_all_option
@_reason_option
@click.pass_context
@pass_app
def drop(
    app: App,
    context: click.Context,
    ids: Sequence[str],
    instance: str,
    every: bool,
    reason: str | None,
) -> None:
    """Delete rejected packets.

    \b
    Examples:
      dataserver rejected drop 1767225600000-1a2b3c-incomplete
      dataserver rejected drop --reason incomplete
    """
    folder = _folder(app, instance)

    def remove(rid: str) -> str:
        folder.drop(rid)
        return f"{rid}: dropped"

    context.exit(_each(_chosen(folder, ids, every, reason), remove))


def _folder(app: App, instance: str) -> Rejected:
    return Rejected(app.paths(instance).rejected)


def _each(ids: Sequence[str], act: Callable[[str], str]) -> int:
    """Act on each packet and print the result; an error does not stop the others.

    Returns the exit code.
    """
    code = 0
    for rid in ids:
        try:
            print_line(act(rid))
        except UsageError as error:
            print_error(error)
            code = error.exit_code
    return code


def _chosen(folder: Rejected, ids: Sequence[str], every: bool, reason: str | None) -> Sequence[str]:
    """The chosen ids: those named, or all (with one reason)."""
    if ids and (every or reason):
        raise UsageError("name packets, or use --all or --reason, not both")
    if ids:
        return ids
    if not every and reason is None:
        raise UsageError("no packet is named", hint="name ids, or use --all or --reason REASON")
    return [packet.id for packet in folder.list() if reason in (None, packet.reason)]


def _as_json(packet: RejectedPacket) -> dict[str, Any]:
    return {
        "id": packet.id,
        "reason": packet.reason.value,
        "detail": packet.detail,
        "name": packet.name,
        "agent": packet.agent,
        "size": packet.size,
        "mtime": packet.mtime,
        "when": packet.when,
    }


def _print_excerpt(content: bytes, size: int) -> None:
    print_line()
    # Not splitlines(), which knows line ends that no editor shows as such.
    for line in content.decode("utf-8", "backslashreplace").split("\n"):
        print_line(line)
    if size > len(content):
        print_line(f"... {size - len(content)} bytes more; --content writes all")
