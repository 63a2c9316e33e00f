"""``dataserver packet``: read a packet as the server would and show what it says."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import IO, Any

import click

from dataserver.cli.base import App, Command, Group, json_option, pass_app
from dataserver.cli.output import print_json, print_line, print_table
from dataserver.model import Module, Packet
from dataserver.packet import parse

#: Shown as tables or lists of their own, not among the packet's attributes.
_NESTED = frozenset(
    {"modules", "custom_fields", "inventory", "logs", "events", "sections", "unstored", "digest"}
)
#: How much of a value the table shows, in characters.
_WIDTH = 60


@click.group(cls=Group)
def packet() -> None:
    """Look at packets."""


@packet.command(cls=Command)
@click.argument("file", type=click.File("rb"))
@json_option
@pass_app
def show(app: App, file: IO[bytes], as_json: bool) -> None:
    """Parse FILE (- for stdin) and print what it says; stores nothing.

    \b
    Examples:
      dataserver packet show data_in/web1.1767225600.data
      dataserver rejected show ID --content | dataserver packet show - --json
    """
    found = parse(file.read())
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)


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
        return f"{len(module.samples)} values: {_short(module.samples[0].value)} ..."
    return "-" if module.value is None else _short(module.value)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}... ({len(text)} characters)"
