"""Generating files from Jinja2 templates: those in the home override those of the package.

Undefined names are errors, and nothing is escaped (the files are not HTML): the caller makes sure
that no value contains a line end.
Source: https://jinja.palletsprojects.com/
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    FunctionLoader,
    StrictUndefined,
    TemplateError,
)

from dataserver.config.paths import Home
from dataserver.errors import ConfigError


@dataclass(frozen=True, slots=True)
class File:
    """A generated file, to be written by a command.

    ``path`` is absolute, or relative to the folder that the command writes.
    """

    path: Path
    text: str
    mode: int = 0o644


def render(home: Home, name: str, /, **values: object) -> str:
    """Render the template ``name`` (such as ``instances/units/dataserver.target.j2``).

    Raises ConfigError if the template is missing or has an error.
    """
    environment = Environment(
        loader=_loader(home),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    try:
        return environment.get_template(name).render(**values)
    except TemplateError as exc:
        raise ConfigError(f"template {name} cannot be used: {exc.message or exc}") from exc


def _loader(home: Home) -> BaseLoader:
    return ChoiceLoader([FileSystemLoader(home.root), FunctionLoader(_packaged)])


def _packaged(name: str) -> str | None:
    template = files("dataserver").joinpath("resources", "home", *name.split("/"))
    return template.read_text("utf-8") if template.is_file() else None
