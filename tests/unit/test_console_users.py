"""The users file of the console: who gets in, what is refused, what a change of it does."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from dataserver.console import users as module
from dataserver.console.users import Users
from dataserver.errors import ConfigError
from tests.support.clock import Clock

NAME, PASSWORD = b"ann", b"correct horse"
#: Always the same: the names of tests are made of it.
HASH = b"$2y$04$" + b"." * 53
TWICE = b"ann:" + HASH + b"\nann:" + HASH + b"\n"


def hashed(password: bytes, cost: int = 4) -> bytes:
    """As `htpasswd -B` has it."""
    return bcrypt.hashpw(password[:72], bcrypt.gensalt(cost)).replace(b"$2b$", b"$2y$", 1)


def line(name: bytes = NAME, password: bytes = PASSWORD) -> bytes:
    return name + b":" + hashed(password) + b"\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "console.users", line())


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that passwords were compared with."""
    found: list[bytes] = []
    compare = bcrypt.checkpw

    def checkpw(password: bytes, hashed: bytes) -> bool:
        found.append(hashed)
        return compare(password, hashed)

    monkeypatch.setattr(module.bcrypt, "checkpw", checkpw)
    return found


def write(path: Path, content: bytes, mode: int = 0o640) -> Path:
    """A new file in its place, as `htpasswd` writes one."""
    fresh = path.with_name("fresh")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)
    return path


class TestPasswords:
    @pytest.mark.parametrize(
        "password",
        [
            b"x",
            b"with:colons:in:it",
            "Ünïcödé \N{SNOWMAN}".encode(),
            b"\xff\xfe not UTF-8",
            b"a" * 72,
        ],
    )
    def test_the_right_one_lets_in_and_no_other(self, tmp_path: Path, password: bytes) -> None:
        users = Users(write(tmp_path / "u", line(password=password)))
        assert users.may(NAME, password)
        for wrong in (b"", password[:-1], password.swapcase() + b"!", b"!" + password):
            assert not users.may(NAME, wrong), wrong

    def test_one_that_is_too_long_for_bcrypt_is_taken_as_htpasswd_takes_it(
        self, tmp_path: Path
    ) -> None:
        users = Users(write(tmp_path / "u", line(password=b"a" * 100)))
        assert users.may(NAME, b"a" * 100)
        assert not users.may(NAME, b"a" * 71)

    @pytest.mark.parametrize("password", [b"\0", PASSWORD + b"\0", PASSWORD + b"\0x", b"p\1"])
    def test_one_with_a_zero_byte_lets_nobody_in(self, tmp_path: Path, password: bytes) -> None:
        users = Users(write(tmp_path / "u", line() + line(b"bob", b"p\1")))
        assert not users.may(NAME, password)
        assert not users.may(b"bob", b"p\0")

    @pytest.mark.parametrize("name", [b"", b"Ann", b"ann ", b"ann:", b"bob", b"\xff", b"a" * 9999])
    def test_the_right_password_of_somebody_else_lets_nobody_in(
        self, path: Path, name: bytes
    ) -> None:
        assert not Users(path).may(name, PASSWORD)

    def test_bcrypts_three_marks_mean_the_same(self, tmp_path: Path) -> None:
        text = hashed(PASSWORD)[4:]
        content = b"".join(b"u%c:$2%c$%s\n" % (each, each, text) for each in b"aby")
        users = Users(write(tmp_path / "u", content))
        assert all(users.may(name, PASSWORD) for name in (b"ua", b"ub", b"uy"))

    def test_a_hash_that_nothing_can_have_lets_nobody_in(self, tmp_path: Path) -> None:
        users = Users(write(tmp_path / "u", b"ann:$2y$04$" + b"9" * 53 + b"\n"))
        assert not users.may(NAME, PASSWORD)


class TestUnknownNames:
    def test_cost_as_much_as_the_dearest_user(self, tmp_path: Path, checked: list[bytes]) -> None:
        content = line() + b"bob:" + hashed(b"b", 6) + b"\ncyd:" + hashed(b"c", 5) + b"\n"
        users = Users(write(tmp_path / "u", content))
        assert not users.may(b"nobody", PASSWORD)
        (found,) = checked
        assert found[:7] == b"$2y$06$"
        assert found not in content


class TestMemory:
    def test_a_right_login_is_known_for_some_minutes_and_costs_nothing_then(
        self, path: Path, clock: Clock, checked: list[bytes]
    ) -> None:
        users = Users(path, clock)
        assert not users.knows(NAME, PASSWORD)
        assert users.may(NAME, PASSWORD)
        for _ in range(20):
            # Each use of it counts anew.
            clock.now += 200
            assert users.knows(NAME, PASSWORD)
        assert len(checked) == 1
        clock.now += 301
        assert not users.knows(NAME, PASSWORD)

    def test_only_the_very_same_login_is_known(self, path: Path, clock: Clock) -> None:
        users = Users(path, clock)
        assert users.may(NAME, PASSWORD)
        for name, password in ((NAME, b"x"), (b"bob", PASSWORD), (NAME + b":correct horse", b"")):
            assert not users.knows(name, password)

    def test_a_wrong_one_is_not_known(self, path: Path, clock: Clock) -> None:
        users = Users(path, clock)
        assert not users.may(NAME, b"wrong")
        assert not users.knows(NAME, b"wrong")

    def test_no_password_is_kept(self, path: Path, clock: Clock) -> None:
        users = Users(path, clock)
        users.may(NAME, PASSWORD)
        assert PASSWORD not in repr(vars(users)).encode()

    def test_it_is_bounded(self, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_REMEMBERED", 2)
        write(path, b"".join(line(b"u%d" % each) for each in range(3)))
        users = Users(path, clock)
        assert users.may(b"u0", PASSWORD)
        assert users.may(b"u1", PASSWORD)
        assert users.knows(b"u0", PASSWORD)
        assert users.may(b"u2", PASSWORD)
        # The one that was used longest ago went.
        known = [users.knows(b"u%d" % each, PASSWORD) for each in range(3)]
        assert known == [True, False, True]


class TestChanges:
    def test_who_is_taken_out_is_out_and_who_is_put_in_is_in(
        self, path: Path, clock: Clock
    ) -> None:
        users = Users(path, clock)
        assert users.may(NAME, PASSWORD)
        write(path, line(b"bob", b"other"))
        clock.now += 2
        assert not users.knows(NAME, PASSWORD)
        assert not users.may(NAME, PASSWORD)
        assert users.may(b"bob", b"other")

    @pytest.mark.parametrize("content", [b"", b"ann\n", b"ann:plain\n", b"\xff\0"])
    def test_a_broken_file_changes_nothing_and_is_told_once(
        self, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: bytes
    ) -> None:
        users = Users(path, clock)
        write(path, content)
        for _ in range(5):
            clock.now += 2
            assert users.may(NAME, PASSWORD)
        assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1
        write(path, line(b"bob", b"other"))
        clock.now += 2
        assert not users.may(NAME, PASSWORD)

    def test_a_file_that_is_gone_changes_nothing(self, path: Path, clock: Clock) -> None:
        users = Users(path, clock)
        path.unlink()
        clock.now += 2
        assert users.may(NAME, PASSWORD)

    def test_who_is_taken_out_while_their_password_is_compared_is_not_remembered(
        self, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        users = Users(path, clock)
        compare: Callable[[bytes, bytes], bool] = bcrypt.checkpw

        def slowly(password: bytes, hashed: bytes) -> bool:
            found = compare(password, hashed)
            write(path, line(b"bob"))
            clock.now += 2
            users.knows(b"bob", b"")
            return found

        monkeypatch.setattr(module.bcrypt, "checkpw", slowly)
        users.may(NAME, PASSWORD)
        assert not users.knows(NAME, PASSWORD)

    def test_threads_do_not_mind_a_file_that_changes(self, path: Path) -> None:
        users = Users(path)
        found: list[bool] = []

        def log_in() -> None:
            for _ in range(20):
                users._looked = float("-inf")
                found.append(users.knows(NAME, PASSWORD) or users.may(NAME, PASSWORD))

        threads = [threading.Thread(target=log_in) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            write(path, line() + line(b"bob"))
        for thread in threads:
            thread.join()
        assert found == [True] * 160


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"# nobody\n\n", "contains no user"),
            (b"ann\n", "line 1: is not NAME:HASH"),
            (b"\n:x\n", "line 2: is not NAME:HASH"),
            (TWICE, "line 2: the user is listed twice"),
            (b"ann:secret\n", "line 1: the password is not hashed with bcrypt"),
            (b"ann:$apr1$abcdefgh$0123456789012345678901\n", "not hashed with bcrypt"),
            (b"ann:" + HASH + b":more\n", "not hashed with bcrypt"),
            (b"ann:" + HASH.replace(b"$04$", b"$31$") + b"\n", "not hashed with bcrypt"),
            (b"ann:" + HASH.replace(b"$04$", b"$00$") + b"\n", "not hashed with bcrypt"),
            (b"#" * (1 << 20) + b"#", "is longer than"),
        ],
    )
    def test_one_that_is_no_good_is_named_with_its_line_and_no_secret(
        self, tmp_path: Path, content: bytes, says: str
    ) -> None:
        path = write(tmp_path / "u", content)
        with pytest.raises(ConfigError) as raised:
            Users(path)
        assert says in str(raised.value)
        assert str(path) in str(raised.value)
        assert "secret" not in str(raised.value)
        assert "$2" not in str(raised.value)

    def test_one_that_is_missing_is_told_with_how_to_make_it(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="htpasswd -B -c"):
            Users(tmp_path / "none")

    @pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
    def test_what_is_no_file_is_refused_at_once(
        self, tmp_path: Path, make: Callable[[Path], None]
    ) -> None:
        make(tmp_path / "u")
        with pytest.raises(ConfigError):
            Users(tmp_path / "u")

    def test_ends_of_lines_blanks_and_remarks_are_as_people_write_them(
        self, tmp_path: Path
    ) -> None:
        content = b"# who may look\r\n\r\n  " + line().rstrip() + b"  \r\n" + line(b"bob").rstrip()
        users = Users(write(tmp_path / "u", content))
        assert users.may(NAME, PASSWORD)
        assert users.may(b"bob", PASSWORD)

    def test_one_that_everybody_can_read_is_warned_of(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        Users(path)
        assert caplog.records == []
        path.chmod(0o644)
        Users(path)
        assert [each.levelname for each in caplog.records] == ["WARNING"]
