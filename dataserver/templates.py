"""Files made from Jinja2 templates: those of the home win over those of the package.

The only module that imports Jinja2.  Undefined names are errors, nothing is escaped (the files
are no HTML): whoever renders has to see to it that a value cannot end its line.
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
    """A file that a renderer made; only a command writes it.

    ``path`` is absolute, or relative to the folder that the command writes.
    """

    path: Path
    text: str
    mode: int = 0o644


def render(home: Home, name: str, /, **values: object) -> str:
    """The template ``name`` (such as ``instances/units/dataserver.target.j2``) filled in.

    Raises ConfigError where the template cannot be used.
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
