"""Keys with which agents upload: what is one, what is refused, what becomes of the file."""

from __future__ import annotations

import base64
import json
import os
import stat
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataserver.config.paths import Home
from dataserver.errors import UsageError
from dataserver.uploads.keys import Entry, Keys, PublicKey, keys_file
from tests.support.commands import Run


def blob(*fields: bytes) -> str:
    raw = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return base64.b64encode(raw).decode()


def ed25519(number: int = 0) -> str:
    return f"ssh-ed25519 {blob(b'ssh-ed25519', bytes([number]) * 32)} somebody@somewhere"


def entry(name: str, number: int = 0) -> Entry:
    return Entry.new(name, PublicKey.parse(ed25519(number)), None)


def refusal(make: Callable[[], object]) -> str:
    """The usage error that this ends with; empty where it ends well."""
    try:
        make()
    except UsageError as error:
        return str(error)
    return ""


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "uploads" / "authorized_keys")


class TestPublicKey:
    def test_keys_as_ssh_keygen_makes_them_are_taken(self, tmp_path: Path) -> None:
        for kind in ("ed25519", "rsa -b 2048", "ecdsa", "ecdsa -b 521"):
            file = tmp_path / kind
            make = ["ssh-keygen", "-q", "-t", *kind.split(), "-N", "", "-f", str(file)]
            subprocess.run(make, check=True)
            public = file.with_name(f"{kind}.pub").read_text()
            shown = subprocess.run(
                ["ssh-keygen", "-l", "-f", str(file)], check=True, capture_output=True, text=True
            )
            assert PublicKey.parse(public).fingerprint == shown.stdout.split()[1], kind
            with pytest.raises(UsageError, match="private key"):
                PublicKey.parse(file.read_text())

    def test_anything_else_is_refused_with_its_reason(self) -> None:
        wrong = {
            text: said
            for text, why in (
                ("", "nothing"),
                ("\n \n", "nothing"),
                (f"{ed25519()}\n{ed25519(1)}", "2 lines"),
                ("ssh-ed25519", "not the beginning"),
                ("hello world", "not the beginning"),
                (f'command="id" {ed25519()}', "not the beginning"),
                (f"restrict,pty {ed25519()}", "not the beginning"),
                (f"cert-authority {ed25519()}", "not the beginning"),
                ("ssh-dss AAAA", "not the beginning"),
                ("ssh-ed25519-cert-v01@openssh.com AAAA", "not the beginning"),
                ("ssh-ed25519 !!!!", "damaged"),
                ("ssh-ed25519 AAAA", "damaged"),
                (f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32)[:-8]}", "damaged"),
                (f"ssh-ed25519 {blob(b'ssh-rsa', b'x', b'y' * 300)}", "not a key of this type"),
                (
                    f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 32, b'more')}",
                    "not a key of this type",
                ),
                (f"ssh-ed25519 {blob(b'ssh-ed25519', b'x' * 31)}", "wrong length"),
                (f"ssh-rsa {blob(b'ssh-rsa', b'x', bytes([1]) * 128)}", "1017 bits"),
                ("PuTTY-User-Key-File-3: ssh-ed25519", "private key"),
            )
            if why not in (said := refusal(lambda text=text: PublicKey.parse(text)))
        }
        assert wrong == {}

    @given(st.text())
    def test_no_text_makes_more_than_one_line_or_an_option(self, text: str) -> None:
        try:
            key = PublicKey.parse(text)
        except UsageError:
            return
        assert Entry.new("a", key, None).line.split(" ")[0] == "restrict"

    @given(st.text())
    def test_any_line_is_an_entry_or_none(self, line: str) -> None:
        found = Entry.parse(line)
        assert found is None or found.key.fingerprint


class TestEntry:
    def test_a_line_is_read_as_it_was_written(self) -> None:
        for name in ("web1", "a@b.c-d_E", "x" * 64):
            made = Entry.new(name, PublicKey.parse(ed25519()), "192.0.2.7, 2001:db8::/32")
            assert made.line.startswith('restrict,from="192.0.2.7,2001:db8::/32" ssh-ed25519 ')
            assert Entry.parse(made.line) == made
            assert made.restricted
            assert made.addresses == "192.0.2.7,2001:db8::/32"

    def test_a_name_that_is_no_good_is_refused(self) -> None:
        key = PublicKey.parse(ed25519())
        names = ["", "a b", "x" * 65, "a\nb", 'a"', "a,b", "é", "#", "a/b"]
        said = {name: refusal(lambda name=name: Entry.new(name, key, None)) for name in names}
        assert {name: text for name, text in said.items() if "invalid key name" not in text} == {}

    def test_addresses_that_are_none_are_refused(self) -> None:
        key = PublicKey.parse(ed25519())
        texts = ["", "192.0.2.1/24", "host.example", '1.2.3.4",pty,from="', "*", "1.2.3.4,,"]
        said = {text: refusal(lambda text=text: Entry.new("a", key, text)) for text in texts}
        assert {text: why for text, why in said.items() if "invalid address" not in why} == {}

    def test_a_line_counts_as_restricted_only_where_nothing_is_given_back(self) -> None:
        for options, restricted in (
            ("", False),
            ("restrict ", True),
            ("RESTRICT ", True),
            ('from="a",restrict ', True),
            ('restrict,expiry-time="20300101" ', True),
            ("restrict,no-pty ", True),
            ("restrict,pty ", False),
            ("restrict,port-forwarding ", False),
            ('restrict,command="restrict" ', False),
            ('command="say \\"hi, you\\",restrict" ', False),
            ('from="restrict" ', False),
            ("no-pty ", False),
            ("restrict,cert-authority ", False),
        ):
            found = Entry.parse(options + ed25519())
            assert found is not None, options
            assert found.restricted is restricted, options
            assert found.name == "somebody@somewhere"


class TestFile:
    def test_it_is_replaced_whole_and_everybody_may_read_it(
        self, keys: Keys, tmp_path: Path
    ) -> None:
        before = os.umask(0o077)
        try:
            keys.add(entry("a"))
        finally:
            os.umask(before)
        path = tmp_path / "uploads/authorized_keys"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        inode = path.stat().st_ino
        keys.add(entry("b", 1))
        assert path.stat().st_ino != inode
        assert os.listdir(path.parent) == ["authorized_keys"]
        assert [each.name for each in keys.entries()] == ["a", "b"]

    def test_neither_a_name_nor_a_key_comes_twice(self, keys: Keys) -> None:
        keys.add(entry("a"))
        with pytest.raises(UsageError, match="a key named 'a' exists"):
            keys.add(entry("a", 1))
        with pytest.raises(UsageError, match="as 'a'"):
            keys.add(entry("b"))
        assert [each.name for each in keys.entries()] == ["a"]

    def test_lines_of_others_stay_as_they_are(self, keys: Keys, tmp_path: Path) -> None:
        path = tmp_path / "uploads/authorized_keys"
        path.parent.mkdir()
        foreign = f"# comment \xe9\n\n  pty {ed25519(9)}\nnonsense\r\n".encode("latin-1")
        path.write_bytes(foreign)
        keys.add(entry("a"))
        assert path.read_bytes() == foreign + entry("a").line.encode() + b"\n"
        assert keys.not_understood() == [4]
        keys.remove("a")
        assert path.read_bytes() == foreign

    def test_only_what_is_there_once_is_removed(self, keys: Keys, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no key is called"):
            keys.remove("a")
        keys.add(entry("a"))
        path = tmp_path / "uploads/authorized_keys"
        path.write_text(path.read_text() + f"{entry('a', 1).line}\n")
        with pytest.raises(UsageError, match="2 keys are called"):
            keys.remove("a")

    def test_two_changes_at_once_lose_nothing(self, keys: Keys) -> None:
        threads = [
            threading.Thread(target=keys.add, args=(entry(f"k{number}", number),))
            for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {each.name for each in keys.entries()} == {f"k{number}" for number in range(20)}


class TestCommand:
    def test_keys_are_added_listed_and_removed(
        self, dataserver: Run, home: Home, tmp_path: Path
    ) -> None:
        file = tmp_path / "key.pub"
        file.write_text(ed25519(1))
        call = ("--home", home.root, "uploads", "key")
        assert dataserver(*call, "list").stdout == "none\n"
        assert dataserver(*call, "add", "a", *ed25519(0).split()).returncode == 0
        assert dataserver(*call, "add", "b", "--file", file, "--from", "10.0.0.0/8").returncode == 0
        assert dataserver(*call, "add", "c", "-", input=ed25519(2)).returncode == 0
        listed = json.loads(dataserver(*call, "list", "--json").stdout)
        assert [(each["name"], each["from"]) for each in listed] == [
            ("a", None),
            ("b", "10.0.0.0/8"),
            ("c", None),
        ]
        assert dataserver(*call, "remove", "b").returncode == 0
        assert "b" not in dataserver(*call, "list").stdout.split()
        assert keys_file(home).read_text().count("\n") == 2

    def test_a_comment_from_outside_moves_no_cursor(self, dataserver: Run, home: Home) -> None:
        keys_file(home).parent.mkdir()
        keys_file(home).write_bytes(f"{ed25519()} \x1b[2J\n".encode())
        assert "\x1b" not in dataserver("--home", home.root, "uploads", "key", "list").stdout

    def test_a_wrong_call_is_one_line(self, dataserver: Run, home: Home) -> None:
        for arguments in (["a"], ["a", "-", "--file", "x"], ["a b", "-"]):
            done = dataserver("--home", home.root, "uploads", "key", "add", *arguments, input="")
            assert done.returncode == 2, arguments
            assert done.stderr.count("\n") == 1
            assert not keys_file(home).exists()
