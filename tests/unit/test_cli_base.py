"""Errors as the command line says them: one line with what, why and what next."""

from __future__ import annotations

import errno
import os

import pytest

from dataserver.cli.base import print_error
from dataserver.errors import StoreUnavailable


def said(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    print_error(error)
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def test_a_missing_right_says_who_lacks_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(PermissionError(errno.EACCES, "Permission denied", "/x"), capsys)
    assert line.startswith(f"dataserver: /x: Permission denied; grant user {os.geteuid()} ")


def test_a_name_of_any_bytes_is_said_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(FileNotFoundError(errno.ENOENT, "No such file", b"a\n\x1b\xff"), capsys)
    assert line == "dataserver: a\\n\\x1b\\udcff: No such file\n"


def test_a_database_that_is_away_says_what_looks_into_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "; `dataserver check` " in said(StoreUnavailable("cannot connect"), capsys)


def test_what_the_database_already_advises_stays(capsys: pytest.CaptureFixture[str]) -> None:
    error = StoreUnavailable("cannot connect", hint="start it")
    assert said(error, capsys) == "dataserver: cannot connect; start it\n"


def test_a_password_in_an_error_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hush" not in said(ValueError("mysql://me:hush@h/n"), capsys)
