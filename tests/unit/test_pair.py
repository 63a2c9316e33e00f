"""pair.toml: what is taken, what is refused and how that is said, what follows for priorities."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataserver.errors import ConfigError, UsageError
from dataserver.vrrp.model import RESERVED_HOSTS, Check, Host, Notify, Pair, about
from dataserver.vrrp.reading import parse, read_pair
from tests.support.pairs import NAMES, SIMPLE, read_case

#: Where a field of the table that is named goes in the simple pair.
HOST = "[[host]]\n"


def changed(old: str, new: str) -> str:
    """The simple pair with the first ``old`` replaced."""
    assert old in SIMPLE
    return SIMPLE.replace(old, new, 1)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "pair.toml")
    line = str(caught.value)
    assert line.startswith("pair.toml")
    assert "\n" not in line
    assert caught.value.hint or "is not TOML" in line
    return line


class TestReading:
    def test_what_is_left_out_has_its_default(self) -> None:
        pair = parse(SIMPLE, "pair.toml")
        assert (pair.virtual_router_id, pair.advert_int, pair.unicast) == (51, 1.0, True)
        assert (pair.preempt, pair.instances, str(pair.home)) == (
            False,
            ("main",),
            "/var/lib/dataserver",
        )
        assert pair.check == Check()
        assert pair.notify == Notify()
        assert [host.name for host in pair.hosts] == ["alpha", "beta"]

    def test_addresses_of_both_kinds_are_told_apart(self) -> None:
        pair = read_case("dual-stack")
        assert [str(each) for each in pair.spoken] == ["192.0.2.10/24", "192.0.2.20/24"]
        assert [str(each) for each in pair.silent] == ["2001:db8::10/64"]

    def test_a_pair_without_ipv4_is_one(self) -> None:
        pair = read_case("ipv6")
        assert (pair.talks, pair.silent) == (6, ())

    def test_the_twin_of_the_twin_is_the_host(self) -> None:
        pair = parse(SIMPLE, "pair.toml")
        first, second = pair.hosts
        assert pair.twin(first) == second
        assert pair.twin(second) == first

    def test_a_missing_file_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="keepalived init"):
            read_pair(tmp_path / "pair.toml")

    def test_a_file_in_another_encoding_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "pair.toml"
        path.write_bytes(b"# \xff\n")
        with pytest.raises(ConfigError, match="is not TOML"):
            read_pair(path)

    def test_every_field_says_what_it_is(self) -> None:
        for record in (Pair, Host, Check, Notify):
            for name, each in about(record).items():
                assert each.meaning.endswith("."), (record, name)
                assert each.kind.allowed, (record, name)


#: What stands there (of the simple pair), what instead, and what the message has to say.
REFUSED = [
    # the pair
    ('["192.0.2.10/24"]', '"192.0.2.10/24"', ["virtual_addresses", "not a list"]),
    ('["192.0.2.10/24"]', "[]", ["virtual_addresses", "has 0 addresses"]),
    ('"192.0.2.10/24"', '"192.0.2.10"', ["virtual_addresses", "'192.0.2.10'", "prefix length"]),
    ('"192.0.2.10/24"', '"192.0.2.10/255.255.255.0"', ["virtual_addresses", "prefix length"]),
    ('"192.0.2.10/24"', '"192.0.2.300/24"', ["virtual_addresses", "192.0.2.300/24"]),
    ('"192.0.2.10/24"', '"192.0.2.0/24"', ["virtual_addresses", "the network itself"]),
    ('"192.0.2.10/24"', '"192.0.2.255/24"', ["virtual_addresses", "broadcast"]),
    ('"192.0.2.10/24"', '"127.0.0.1/24"', ["virtual_addresses", "127.0.0.1"]),
    ('"192.0.2.10/24"', '"224.0.0.18/24"', ["virtual_addresses", "224.0.0.18"]),
    ('"192.0.2.10/24"', '"::ffff:192.0.2.10/120"', ["virtual_addresses", "IPv4 address written"]),
    ('"192.0.2.10/24"', '"fe80::1%eth0/64"', ["virtual_addresses", "prefix length"]),
    ('"192.0.2.10/24"', '"192.0.2.10/25"', ["virtual_addresses", "192.0.2.0/24", "with /24"]),
    ('"192.0.2.10/24"', '"192.0.3.10/24"', ["virtual_addresses", "not in the hosts' network"]),
    ('"192.0.2.10/24"', '"192.0.2.10/24", "192.0.2.10/24"', ["virtual_addresses", "twice"]),
    ('"192.0.2.10/24"', '"192.0.2.12/24"', ["virtual_addresses", "beta's own"]),
    ('"192.0.2.10/24"', '"2001:db8::1/64"', ["virtual_addresses", "address6"]),
    ("virtual_addresses", "virtual_address", ["virtual_address'", "'virtual_addresses'?"]),
    (HOST, f"virtual_router_id = 0\n{HOST}", ["virtual_router_id = 0", "from 1 to 255"]),
    (HOST, f"virtual_router_id = 256\n{HOST}", ["virtual_router_id = 256", "from 1 to 255"]),
    (HOST, f"virtual_router_id = true\n{HOST}", ["virtual_router_id", "not a whole number"]),
    (HOST, f"virtual_router_idd = 1\n{HOST}", ["'virtual_router_id'?"]),
    (HOST, f"advert_int = 0.0\n{HOST}", ["advert_int", "0.01 to 40.95"]),
    (HOST, f"advert_int = 40.96\n{HOST}", ["advert_int", "0.01 to 40.95"]),
    (HOST, f"advert_int = 0.015\n{HOST}", ["advert_int", "multiple of 0.01"]),
    (HOST, f"advert_int = nan\n{HOST}", ["advert_int", "0.01 to 40.95"]),
    (HOST, f"advert_int = '1'\n{HOST}", ["advert_int", "not a number"]),
    (HOST, f"unicast = 1\n{HOST}", ["unicast", "true or false"]),
    (HOST, f"preempt = 'often'\n{HOST}", ["preempt", "true or false"]),
    (HOST, f"preempt_delay = 5\n{HOST}", ["preempt_delay", "without preempt"]),
    (HOST, f"preempt = true\npreempt_delay = 1001\n{HOST}", ["preempt_delay = 1001"]),
    (HOST, f"instances = []\n{HOST}", ["instances", "no names"]),
    (HOST, f"instances = ['../x']\n{HOST}", ["instances", "'../x'"]),
    (HOST, f"instances = ['main', 'main']\n{HOST}", ["instances", "twice"]),
    (HOST, f"home = 'here'\n{HOST}", ["home = 'here'", "absolute"]),
    (HOST, f"home = '/a/../b'\n{HOST}", ["home", "absolute"]),
    (HOST, f'home = "/a\\nb"\n{HOST}', ["home", "printable"]),
    (HOST, f"script_user = 'Root; id'\n{HOST}", ["script_user", "an account"]),
    # the hosts
    ('"beta"', '"ALPHA"', ["name", "both hosts"]),
    ('"alpha"', '"al/pha"', ["host 1: name", "letters, digits"]),
    ('"alpha"', '".."', ["host 1: name", "letters, digits"]),
    ('"alpha"', f'"{next(iter(RESERVED_HOSTS))}"', ["host 1: name", "reserved"]),
    ('name = "alpha"\n', "", ["host 1: name is missing"]),
    ('"192.0.2.11/24"', '"192.0.2.12/24"', ["address", "both hosts"]),
    ('"192.0.2.11/24"', '"192.0.9.11/24"', ["address", "not in one network"]),
    ('"192.0.2.11/24"', '"2001:db8::11/64"', ["address", "not in one network"]),
    ('"192.0.2.11/24"\n', '"192.0.2.11/24"\naddress6 = "2001:db8::1/64"\n', ["address6", "one"]),
    ('"eth0"', '"eth0 dev"', ["host 1: interface", "1 to 15"]),
    ('"eth0"', '"lo"', ["host 1: interface", "reserved"]),
    ('"eth0"', '"sixteencharacter"', ["host 1: interface", "1 to 15"]),
    ('"eth0"', '"all"', ["host 1: interface", "reserved"]),
    ('"eth0"', '"default"', ["host 1: interface", "reserved"]),
    ("= 201", "= 0", ["host 1: priority = 0", "from 1 to 254"]),
    ("= 201", "= 255", ["host 1: priority = 255", "from 1 to 254"]),
    ("= 201", "= 200", ["priority = 200", "both hosts"]),
    ("= 201", "= 254", ["priority = 254 and 200", "no room"]),
    ("= 200", "= 100", ["priority = 201 and 100", "no room"]),
    ("priority = 200", "prioritie = 200", ["host 2", "'priority'?"]),
]

#: The same for what may stand at the end.
REFUSED_TABLES = [
    ("check = 1", ["check = 1", "[check]"]),
    ("[check]\ninterval = 0", ["check.interval = 0"]),
    ("[check]\nintervall = 2", ["check.", "'interval'?"]),
    ("[check]\ndisk_warn_percent = 9\ndisk_ok_percent = 9", ["check.disk_ok_percent = 9"]),
    ("[notify]\ncommand = 'tell me'", ["notify.command", "not a list"]),
    ("[notify]\ncommand = ['tell']", ["notify.command", "path of a program"]),
    ('[notify]\ncommand = ["/bin/tell", "a\\nb"]', ["notify.command", "printable"]),
    ("[notify]\nmail_to = ['a@b}c']", ["notify.mail_to", "'a@b}c'"]),
    ("[notify]\nmail_to = ['a@example.org']", ["notify.mail_to", "notify.smtp_server"]),
    ("[notify]\nmail_from = 'me'", ["notify.mail_from"]),
    ("[notify]\nsmtp_server = 'mail:25'", ["notify.smtp_server"]),
    ("[notify]\nsmtp_server = 'fe:25'", ["notify.smtp_server", "notify.smtp_port"]),
    ("[notify]\nsmtp_port = 0", ["notify.smtp_port = 0"]),
    ("[[host]]\nname = 'third'", ["has 3 hosts"]),
]


class TestRefusals:
    def test_a_wrong_field_is_named(self) -> None:
        lines = {(old, new): refusal(changed(old, new)) for old, new, _ in REFUSED}
        assert [
            (old, new, word, lines[old, new])
            for old, new, says in REFUSED
            for word in says
            if word not in lines[old, new]
        ] == []

    def test_a_wrong_field_of_a_table_is_named(self) -> None:
        wrong = []
        for tail, says in REFUSED_TABLES:
            text = f"{tail}\n{SIMPLE}" if tail.startswith("check =") else f"{SIMPLE}\n{tail}\n"
            line = refusal(text)
            wrong += [(tail, word, line) for word in says if word not in line]
        assert wrong == []

    def test_what_is_no_toml_is_refused(self) -> None:
        assert "is not TOML" in refusal("virtual_addresses = [")

    def test_what_is_much_too_long_or_too_deep_is_refused_in_a_line_of_some_length(self) -> None:
        for line in (
            f"x = {'[' * 5000}{']' * 5000}",
            f"x = {'{a=' * 3000}1{'}' * 3000}",
            f"virtual_router_id = {'9' * 5000}",
            f"virtual_router_id = 0x{'f' * 5000}",
            f"advert_int = 0x{'f' * 5000}",
            f"instances = [0x{'f' * 5000}]",
            f"check = 0x{'f' * 5000}",
            f"home = '{'x' * 5000}'",
        ):
            with pytest.raises(ConfigError) as caught:
                parse(f"{line}\n{SIMPLE}", "pair.toml")
            assert str(caught.value).startswith("pair.toml"), line[:25]
            assert len(str(caught.value)) < 500, line[:25]

    def test_ipv6_addresses_beside_a_host_of_ipv6_are_refused(self) -> None:
        text = SIMPLE.replace(
            '"192.0.2.11/24"', '"2001:db8::11/64"\naddress6 = "2001:db9::1/64"'
        ).replace('"192.0.2.12/24"', '"2001:db8::12/64"\naddress6 = "2001:db9::2/64"')
        assert "address6 is for an IPv6 address beside" in refusal(text)

    def test_virtual_addresses_of_the_other_kind_alone_are_refused(self) -> None:
        text = SIMPLE.replace('["192.0.2.10/24"]', '["2001:db8::10/64"]')
        text = text.replace('"192.0.2.11/24"', '"192.0.2.11/24"\naddress6 = "2001:db8::11/64"')
        text = text.replace('"192.0.2.12/24"', '"192.0.2.12/24"\naddress6 = "2001:db8::12/64"')
        assert "virtual_addresses has no IPv4 address" in refusal(text)

    def test_hosts_that_are_no_two_tables_are_refused(self) -> None:
        head = SIMPLE.partition(HOST)[0]
        for hosts in ("", "host = 1", "host = {}", "[host]\nname = 'a'"):
            assert "[[host]] twice" in refusal(f"{head}\n{hosts}\n"), hosts

    def test_hosts_that_are_no_tables_are_refused(self) -> None:
        assert "[[host]]" in refusal(SIMPLE.partition(HOST)[0] + "host = [1, 2]\n")

    @given(data=st.text(max_size=200))
    def test_no_text_gives_anything_but_a_pair_or_this_error(self, data: str) -> None:
        for text in (data, f"{SIMPLE}\n{data}", f"{data}\n{SIMPLE}"):
            try:
                parse(text, "pair.toml")
            except ConfigError:
                continue

    @given(
        table=st.sampled_from(["", "[check]\n", "[notify]\n"]),
        key=st.sampled_from([*about(Pair), *about(Check), *about(Notify)]),
        value=st.sampled_from(
            ["[]", "[[]]", "[{}]", "{}", "inf", "-1", "''", "'\\'", "2026-01-01", "99999999999999"]
        ),
    )
    def test_no_value_gives_anything_but_a_pair_or_this_error(
        self, table: str, key: str, value: str
    ) -> None:
        line = f"{key} = {value}\n"
        text = f"{SIMPLE}\n{table}{line}" if table else f"{line}{SIMPLE}"
        try:
            parse(text, "pair.toml")
        except ConfigError:
            return


class TestPriorities:
    """The numbers by which keepalived decides who has the address."""

    @staticmethod
    def pairs() -> st.SearchStrategy[Pair]:
        def make(high: int, low: int, preempt: bool) -> Pair | None:
            text = SIMPLE.replace("= 201", f"= {high}").replace("= 200", f"= {low}")
            text = f"preempt = {str(preempt).lower()}\n{text}"
            try:
                return parse(text, "pair.toml")
            except ConfigError:
                return None

        numbers = st.integers(1, 254)
        made = st.builds(make, numbers, numbers, st.booleans())
        return made.filter(lambda pair: pair is not None)  # type: ignore[return-value]

    @staticmethod
    def effective(pair: Pair, host: Host, *, has_it: bool, sick: bool) -> int:
        found = host.priority + pair.hold * has_it - pair.weight * sick
        # keepalived cuts off what is outside, and then who is well would not tell.
        assert 1 <= found <= 254
        return found

    @given(data=st.data())
    def test_a_sick_host_loses_to_a_well_one_whoever_has_the_address(
        self, data: st.DataObject
    ) -> None:
        pair = data.draw(self.pairs())
        for host in pair.hosts:
            for has_it in (True, False):
                sick = self.effective(pair, host, has_it=has_it, sick=True)
                well = self.effective(pair, pair.twin(host), has_it=not has_it, sick=False)
                untold = self.effective(pair, pair.twin(host), has_it=False, sick=False)
                assert sick < untold <= well

    @given(data=st.data(), sick=st.booleans())
    def test_of_two_alike_the_one_that_has_it_keeps_it_unless_the_pair_preempts(
        self, data: st.DataObject, sick: bool
    ) -> None:
        pair = data.draw(self.pairs())
        first, second = sorted(pair.hosts, key=lambda host: -host.priority)
        of_first = self.effective(pair, first, has_it=False, sick=sick)
        of_second = self.effective(pair, second, has_it=True, sick=sick)
        assert (of_second > of_first) is not pair.preempt


class TestShipped:
    def test_every_case_is_a_pair(self) -> None:
        assert {name: len(read_case(name).hosts) for name in NAMES} == dict.fromkeys(NAMES, 2)

    def test_the_commented_file_is_a_pair_and_has_every_field(self) -> None:
        text = (Path(__file__).parents[2] / "keepalived" / "pair.toml").read_text("utf-8")
        data = tomllib.loads(text.replace("# preempt_delay", "preempt_delay"))
        defaults = parse(SIMPLE, "pair.toml")
        assert parse(text, "pair.toml") == defaults, "what it sets is what it would be anyway"
        assert set(data) - {"host", "check", "notify"} == set(about(Pair))
        assert set(data["check"]) == set(about(Check))
        assert set(data["notify"]) == set(about(Notify))
        assert set(data["host"][0]) | {"address6"} == set(about(Host))
