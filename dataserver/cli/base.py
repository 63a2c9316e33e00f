"""What all commands share: --home and --debug, errors as one line on stderr, lazy loading."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from dataserver import __version__
from dataserver.cli.program import spelled
from dataserver.config.kinds import masked
from dataserver.config.load import load
from dataserver.config.paths import MAIN, Home, Paths, find
from dataserver.config.settings import Settings
from dataserver.errors import DataserverError, StoreUnavailable, UsageError
from dataserver.logs import printable

#: Exit code after an unexpected error (EX_SOFTWARE of sysexits.h).
INTERNAL_ERROR = 70
#: Exit code after Ctrl-C, as a shell reports it.
INTERRUPTED = 130


@dataclass
class App:
    """The values of the options that every command has."""

    home_option: Path | None = None
    debug: bool = False

    @property
    def home(self) -> Home:
        """The home to work on; it need not exist."""
        return find(self.home_option, os.environ, Path.cwd())

    def existing_home(self) -> Home:
        """The home to work on; UsageError unless it contains an instance."""
        if not self.home.instance_names():
            self.home.existing()  # raises: it names what is missing
        return self.home

    def paths(self, instance: str) -> Paths:
        """The files of an existing instance; UsageError if there is no such instance."""
        return self.home.existing(instance)

    def settings(self, instance: str) -> tuple[Settings, Paths]:
        """The settings and files of an instance; raises ConfigError and UsageError."""
        paths = self.home.instance(instance)
        return load(paths, os.environ), paths


pass_app = click.make_pass_decorator(App, ensure=True)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

instance_argument = click.argument("instance", default=MAIN, metavar="[INSTANCE]")


def _keep_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(App).home_option = value


def _keep_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(App).debug = True


def _common_options() -> list[click.Parameter]:
    """``--home`` and ``--debug``, accepted before and after the name of any command."""
    return [
        click.Option(
            ["--home"],
            # Whether it is readable shows when its files are read.
            type=click.Path(path_type=Path, readable=False),
            metavar="DIR",
            expose_value=False,
            callback=_keep_home,
            help="The home to work on.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_keep_debug,
            help="Show the traceback of an error.",
        ),
    ]


class Command(click.Command):
    """A command with the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()


class Group(click.Group):
    """A group of commands, itself with the common options."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _common_options()


class LazyGroup(Group):
    """The top-level command: loads the others on demand and prints errors as one line."""

    def __init__(self, *, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._commands_at = commands_at
        self.params.append(_version_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded now, or None if the name is unknown."""
        where = self._commands_at.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit with its exit code."""
        app = App()
        extra.update(obj=app, standalone_mode=False)
        sys.exit(_guarded(lambda: super(LazyGroup, self).main(args, **extra), app))


def _version_option() -> click.Option:
    def show(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            click.echo(f"dataserver {__version__}")
            context.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show,
        help="Show the version.",
    )


def _guarded(run: Callable[[], object], app: App) -> int:
    """Call ``run``; an error becomes one line on stderr and an exit code (docs/exit-codes.md)."""
    try:
        code = run()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001 (the one place that handles every error)
        if app.debug:
            traceback.print_exc()
        else:
            print_error(exc)
        return _exit_code(exc)
    return code if isinstance(code, int) else 0


def print_error(exc: Exception) -> None:
    """Print an error on stderr in one line: what failed, why, and what to do."""
    click.echo(f"dataserver: {printable(masked(_line(exc)))}", err=True)


def _line(exc: Exception) -> str:
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "dataserver"
        return f"{exc.format_message().rstrip('.')}; {spelled(f'see `{command} --help`')}"
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    if isinstance(exc, StoreUnavailable) and exc.hint is None:
        hint = spelled("`dataserver check` checks the database and the configuration")
        return f"{exc}; {hint}"
    if isinstance(exc, DataserverError):
        return f"{exc.message}; {spelled(exc.hint)}" if exc.hint else exc.message
    if isinstance(exc, OSError):
        where = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, str | bytes) else ""
        return f"{where}{exc.strerror or exc}{_remedy(exc)}"
    return f"internal error: {type(exc).__name__}: {exc}; run it again with --debug and report it"


def _remedy(exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return f"; grant user {os.geteuid()} access, or run this as another user"
    return ""


def _exit_code(exc: Exception) -> int:
    if isinstance(exc, DataserverError | click.ClickException):
        return exc.exit_code
    return 1 if isinstance(exc, OSError) else INTERNAL_ERROR
