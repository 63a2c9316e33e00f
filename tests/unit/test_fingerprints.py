"""What of the machine's files goes into the database for the twin to be compared with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataserver.ingest.fingerprints import (
    EVERY,
    Fingerprints,
    authorized_keys_digest,
    host_keys_digest,
    pair_digest,
)
from dataserver.store.processes import ProcessFingerprints
from tests.support.clock import Clock

KEY, OTHER = b"ssh-ed25519 AAAAC3Nz", b"ecdsa-sha2-nistp256 AAAAE2Vj"


class TestAuthorizedKeys:
    SAME = (
        KEY + b" web1\n" + OTHER + b" web2\n",
        OTHER + b" web2\n" + KEY + b" web1\n",
        b"# a comment\n\n  " + OTHER + b"\n" + KEY + b"   another comment\n",
        KEY + b" web1\n" + KEY + b" again\n" + OTHER,
    )

    def test_order_comments_and_repetitions_do_not_matter(self) -> None:
        assert len({authorized_keys_digest(text) for text in self.SAME}) == 1

    def test_keys_and_options_do(self) -> None:
        texts = [
            KEY,
            OTHER,
            KEY + b"\n" + OTHER,
            b"restrict " + KEY,
            b'restrict,from="10.0.0.0/8" ' + KEY,
            b'from="10.0.0.0/8, ssh-rsa AAAA" ' + KEY,
            b'from="10.0.0.0/8, ssh-rsa BBBB" ' + KEY,
            b'command="a \\" b" ' + KEY,
            b'command="a \\" c" ' + KEY,
            b"ssh-ed25519 AAAAC3Nzx",
            b"",
            b"what is this?",
            b'"',
        ]
        assert len({authorized_keys_digest(text) for text in texts}) == len(texts)

    def test_a_comment_after_options_does_not_matter(self) -> None:
        line = b'restrict,command="internal sftp" ' + KEY
        assert authorized_keys_digest(line + b" web1") == authorized_keys_digest(line)


def test_host_keys_are_compared_whatever_their_files_and_comments() -> None:
    one = host_keys_digest([KEY + b" root@ds1\n", OTHER + b" root@ds1\n"])
    assert one == host_keys_digest([OTHER + b" root@ds2\n", KEY + b"\n"])
    assert one != host_keys_digest([KEY + b" root@ds1\n"])


def test_of_pair_toml_counts_what_it_says() -> None:
    one = pair_digest(b'a = 1\n[t]\nb = "x"\n')
    assert one == pair_digest(b'# comment\n[t]\nb = "x" # more\n'.replace(b"[t]", b"a=1\n[t]"))
    assert one != pair_digest(b'a = 2\n[t]\nb = "x"\n')
    broken = {pair_digest(text) for text in (b"a = ", b"a = [", b"\xff")}
    assert len(broken) == 3


def test_a_pair_toml_that_nothing_can_be_made_of_has_a_fingerprint_too() -> None:
    texts = {
        "deep": b"a = " + b"[" * 5000 + b"]" * 5000,
        # Going through its keys takes quadratic time.
        "deep keys": b".".join([b"a"] * 1500) + b" = 1",
        "a number that cannot be written": b"a = 0x" + b"f" * 5000,
        "a number that cannot be read": b"a = " + b"9" * 5000,
    }
    # Of its bytes: what it says would be the same with a blank more.
    same = [what for what, text in texts.items() if pair_digest(text) == pair_digest(text + b" ")]
    assert same == []


class TestLooking:
    @pytest.fixture
    def time(self) -> list[float]:
        return Clock(100.0)

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        for folder in ("ssh", "uploads", "keepalived"):
            (tmp_path / folder).mkdir()
        (tmp_path / "ssh" / "ssh_host_a_key.pub").write_bytes(KEY)
        (tmp_path / "uploads" / "authorized_keys").write_bytes(OTHER)
        (tmp_path / "keepalived" / "pair.toml").write_text("a = 1\n")
        return tmp_path

    @pytest.fixture
    def prints(self, home: Path, time: Clock) -> Fingerprints:
        return Fingerprints(home, time, ssh=home / "ssh")

    def test_all_that_is_there_is_told(self, prints: Fingerprints) -> None:
        assert prints.current() == ProcessFingerprints(
            host_keys=host_keys_digest([KEY]),
            authorized_keys=authorized_keys_digest(OTHER),
            pair=pair_digest(b"a = 1"),
        )

    def test_a_change_is_seen_within_a_minute_and_not_looked_for_before(
        self, prints: Fingerprints, home: Path, time: Clock
    ) -> None:
        before = prints.current()
        changed = home / "uploads" / "authorized_keys"
        changed.write_bytes(KEY)
        # The clock of the file system may not have moved since the file was made.
        os.utime(changed, (1_000_000_000, 1_000_000_000))
        time.advance(EVERY - 1)
        assert prints.current() is before
        time.advance(1)
        assert prints.current() == before._replace(authorized_keys=authorized_keys_digest(KEY))

    def test_nothing_is_read_again_that_did_not_change(
        self, prints: Fingerprints, time: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = prints.current()

        def fail(_: Path) -> bytes:
            raise AssertionError("it was read again")

        monkeypatch.setattr(Path, "read_bytes", fail)
        time.advance(EVERY)
        assert prints.current() is before

    def test_what_is_not_there_has_no_fingerprint(self, tmp_path: Path) -> None:
        assert (
            Fingerprints(tmp_path, lambda: 0.0, ssh=tmp_path / "x").current()
            == ProcessFingerprints()
        )

    def test_what_appears_later_is_told(self, tmp_path: Path, time: Clock) -> None:
        prints = Fingerprints(tmp_path, time, ssh=tmp_path)
        assert prints.current() == ProcessFingerprints()
        (tmp_path / "ssh_host_a_key.pub").write_bytes(KEY)
        time.advance(EVERY)
        assert prints.current() == ProcessFingerprints(host_keys=host_keys_digest([KEY]))

    def test_of_host_keys_that_cannot_all_be_read_there_is_none(
        self, prints: Fingerprints, home: Path
    ) -> None:
        (home / "ssh" / "ssh_host_b_key.pub").mkdir()
        assert prints.current().host_keys is None

    def test_a_pipe_holds_nobody_up(self, prints: Fingerprints, home: Path) -> None:
        (home / "keepalived" / "pair.toml").unlink()
        os.mkfifo(home / "keepalived" / "pair.toml")
        assert prints.current().pair is None
