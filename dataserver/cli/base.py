"""What all commands share: --home and --debug everywhere, errors as one line, lazy loading."""

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
from dataserver.config import paths as home
from dataserver.config.kinds import masked
from dataserver.config.load import Settings, load
from dataserver.config.paths import MAIN, Home, Paths
from dataserver.errors import DataserverError, StoreUnavailable, UsageError
from dataserver.logs import printable

#: An error that nobody foresaw (EX_SOFTWARE of sysexits.h).
INTERNAL_ERROR = 70
#: Ended by Ctrl-C, as a shell reports it.
INTERRUPTED = 130


@dataclass
class App:
    """What the options that every command has say."""

    home_option: Path | None = None
    debug: bool = False

    @property
    def home(self) -> Home:
        """The home that is meant; it need not exist."""
        return home.find(self.home_option, os.environ, Path.cwd())

    def paths(self, instance: str) -> Paths:
        """The files of an instance that exists; UsageError where it does not."""
        return self.home.existing(instance)

    def settings(self, instance: str) -> tuple[Settings, Paths]:
        """The settings and files of an instance; ConfigError, UsageError."""
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
    """``--home`` and ``--debug``, taken before and after any command's name."""
    return [
        click.Option(
            ["--home"],
            # Whether it can be read is told by what is read in it.
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
    """The outermost command: loads the others when needed and turns errors into one line."""

    def __init__(self, *, commands_at: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._commands_at = commands_at
        self.params.append(_version_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the help."""
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, loaded now; None if there is none of that name."""
        where = self._commands_at.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run the command line and leave the process with its exit code."""
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
    """Run it; an error becomes one line on stderr and an exit code (docs/exit-codes.md)."""
    try:
        code = run()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001 (the one place where every error ends)
        if app.debug:
            traceback.print_exc()
        else:
            complain(exc)
        return _exit_code(exc)
    return code if isinstance(code, int) else 0


def complain(exc: Exception) -> None:
    """Say on stderr what went wrong, in one line: what, why, what next."""
    click.echo(f"dataserver: {printable(masked(_line(exc)))}", err=True)


def _line(exc: Exception) -> str:
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "dataserver"
        return f"{exc.format_message().rstrip('.')}; {spelled(f'see `{command} --help`')}"
    if isinstance(exc, click.ClickException):
        return exc.format_message()
    if isinstance(exc, StoreUnavailable) and exc.hint is None:
        hint = spelled("`dataserver check` looks at the database and at what is configured")
        return f"{exc}; {hint}"
    if isinstance(exc, DataserverError):
        return f"{exc.message}; {spelled(exc.hint)}" if exc.hint else exc.message
    if isinstance(exc, OSError):
        where = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, str | bytes) else ""
        return f"{where}{exc.strerror or exc}{_remedy(exc)}"
    return f"internal error: {type(exc).__name__}: {exc}; run it again with --debug and report it"


def _remedy(exc: OSError) -> str:
    if isinstance(exc, PermissionError):
        return f"; give user {os.geteuid()} the right, or run this as another user"
    return ""


def _exit_code(exc: Exception) -> int:
    if isinstance(exc, DataserverError | click.ClickException):
        return exc.exit_code
    return 1 if isinstance(exc, OSError) else INTERNAL_ERROR
