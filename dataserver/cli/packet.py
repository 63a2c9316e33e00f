"""``dataserver packet``: parse a packet as the server would and show its content."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app
from dataserver.cli.output import print_json, print_line, print_table, shortened
from dataserver.config.paths import MAIN
from dataserver.errors import IncompletePacket, PacketError
from dataserver.model import Module, Packet
from dataserver.packet.parse import parse, renamed

if TYPE_CHECKING:
    from dataserver.cli.would import Would

#: Shown as tables or lists of their own, not among the packet's attributes.
_NESTED = frozenset(
    {"modules", "custom_fields", "inventory", "logs", "events", "sections", "unstored", "digest"}
    | {"remarks"}
)


@click.group(cls=Group)
def packet() -> None:
    """Look at packets.

    \b
    Examples:
      dataserver packet show data_in/web1.1767225600.data
    """


@packet.command(cls=Command)
@click.argument("file", type=click.Path(readable=False))
@click.option("--would", "rehearse", is_flag=True, help="Also show what storing it now would do.")
@click.option(
    "--instance", default=MAIN, metavar="NAME", help="--would in this instance (default: main)."
)
@json_option
@pass_app
def show(app: App, file: str, rehearse: bool, instance: str, as_json: bool) -> None:
    """Parse FILE (- for stdin) and print its content; nothing is stored.

    With --would the packet is stored in the instance's database up to just before the commit,
    and then rolled back: this shows which agent and modules would be created, which values
    stored, or why the packet would be rejected.

    \b
    Examples:
      dataserver packet show data_in/web1.1767225600.data
      dataserver packet show --would data_in/web1.1767225600.data
      dataserver rejected show ID --content | dataserver packet show - --json
    """
    with click.open_file(file, "rb") as stream:
        content = stream.read()
        try:
            found = parse(content)
        except PacketError as error:
            _refuse(file, error)
        result = _rehearsed(app, instance, stream, found, len(content)) if rehearse else None
    if as_json:
        print_json(_as_json(found) | ({"would": result.as_json()} if result else {}))
    else:
        _print(found)
        if result:
            result.show()


def _refuse(file: str, error: PacketError) -> NoReturn:
    """Raise an error that says why the file is not a packet, and what the server would do."""
    fate = f"the server would reject it as {error.reason.value}"
    if isinstance(error, IncompletePacket):
        fate = f"the server would wait for the rest, then reject it as {error.reason.value}"
    raise PacketError(error.reason, f"{file}: {error.message}; {fate}") from error


def _rehearsed(app: App, instance: str, file: IO[bytes], found: Packet, size: int) -> Would:
    # Imported here: the rest of this command needs no database.
    from dataserver.cli.would import would  # noqa: PLC0415

    settings, paths = app.settings(instance)
    now, status = time.time(), os.fstat(file.fileno())
    # The time of a pipe means nothing.
    modified = status.st_mtime if stat.S_ISREG(status.st_mode) else now
    name = Path(file.name).name
    return would(found, size, name, int(modified), int(now), settings, paths)


def _as_json(found: Packet) -> dict[str, Any]:
    data = {each.name: getattr(found, each.name) for each in fields(found)}
    data["digest"] = found.digest.hex()
    data["modules"] = [_module(module) for module in found.modules]
    data["custom_fields"] = [{"name": n, "value": v} for n, v in found.custom_fields]
    for name in ("inventory", "logs", "sections"):
        data[name] = [asdict(record) for record in data[name]]
    data["unstored"] = dict(found.unstored)
    return data


def _module(module: Module) -> dict[str, Any]:
    samples = [sample._asdict() for sample in module.samples]
    return {**module._asdict(), "samples": samples}


def _print(found: Packet) -> None:
    for each in fields(found):
        value = getattr(found, each.name)
        if each.name not in _NESTED and value not in (None, ()):
            text = ", ".join(value) if isinstance(value, tuple) else value
            print_line(f"{each.name}: {text}")
    print_line(f"digest: {found.digest.hex()}")
    modules = (renamed("module", module.name) for module in found.modules)
    for remark in filter(None, (*found.remarks, *modules)):
        print_line(f"note: {remark}")
    for name, value in found.custom_fields:
        print_line(f"custom field {name}: {value}")
    for inventory in found.inventory:
        print_line(f"inventory {inventory.name}: {len(inventory.rows)} rows")
    for name, count in found.unstored:
        print_line(f"not stored: {count} x {name}")
    if found.modules:
        print_line()
        rows = [(module.name, module.type, _value(module)) for module in found.modules]
        print_table(("MODULE", "TYPE", "VALUE"), rows)


def _value(module: Module) -> str:
    if module.samples:
        return f"{len(module.samples)} values: {shortened(module.samples[0].value)} ..."
    return "-" if module.value is None else shortened(module.value)
