"""`uploads setup` on a machine: what it puts in place, what it leaves alone, what `check` finds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import Run
from tests.support.failures import failures
from tests.support.sshd import ALIAS, HOME, SCP, UPLOAD, Machine, host, machine, pretend

__all__ = ["host"]

DROP_IN = Path("etc/ssh/sshd_config.d/dataserver.conf")
SETUP = ("uploads", "setup", "--install")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Machine]:
    """One with a home, on which nothing was set up."""
    with machine(tmp_path / "machine") as made:
        made.dataserver("init")
        yield made


def steps(done: str) -> dict[str, list[str]]:
    """What was done to what."""
    found: dict[str, list[str]] = {}
    for each in json.loads(done):
        found.setdefault(each["did"], []).append(each["what"])
    return found


def problems(host: Machine, instance: str = "main") -> list[str]:
    done = host.dataserver("check", instance, "--json", check=False)
    checks = json.loads(done.stdout)["checks"]
    return [f"{each['name']}: {each['text']}" for each in checks if not each["ok"]]


def accounts(host: Machine) -> list[str]:
    names = (line.split(":")[0] for line in (host.root / "etc/passwd").read_text().splitlines())
    return sorted(name for name in names if name.startswith("dataserver"))


class TestInstall:
    def test_what_it_put_in_place_is_in_order_and_stays(self, bare: Machine) -> None:
        first = steps(bare.dataserver(*SETUP, "--json").stdout)
        assert set(first) == {"wrote", "made", "set", "next"}
        assert accounts(bare) == ["dataserver", SCP, UPLOAD]
        assert problems(bare) == []
        again = steps(bare.dataserver(*SETUP, "--json").stdout)
        assert set(again) == {"kept", "next"}

    def test_without_systemd_the_accounts_are_made_by_hand(self, bare: Machine) -> None:
        bare.run("mount", "--bind", "/dev/null", "/usr/bin/systemd-sysusers", check=False)
        bare.dataserver(*SETUP)
        assert problems(bare) == []
        assert bare.run("id", "-nG", "dataserver").stdout.split() == ["dataserver", UPLOAD]

    def test_what_an_administrator_changed_stays_and_is_named(self, bare: Machine) -> None:
        bare.dataserver(*SETUP)
        changed = {bare.root / DROP_IN: "# mine\n", bare.home / "uploads/receive": "#!/bin/sh\n"}
        for path, content in changed.items():
            path.write_text(content)
        told = bare.dataserver(*SETUP).stdout
        for path, content in changed.items():
            assert path.read_text() == content
            assert f"{path.name} (it differs" in told
        assert sorted(each.split(":")[0] for each in problems(bare)) == [
            "uploads scp",
            "uploads sshd",
        ]
        assert "receive.old" in bare.dataserver(*SETUP, "--replace").stdout
        assert problems(bare) == []
        for path, content in changed.items():
            assert path.with_name(f"{path.name}.old").read_text() == content

    def test_nothing_is_done_where_sshd_refuses_its_configuration_already(
        self, bare: Machine
    ) -> None:
        (bare.root / "etc/ssh/sshd_config").write_text("Nonsense yes\n")
        done = bare.dataserver(*SETUP, check=False)
        assert done.returncode == 1
        assert "Nonsense" in done.stderr
        assert done.stderr.count("\n") == 1
        assert accounts(bare) == []

    @pytest.mark.parametrize("old", [None, "# what was there\n"])
    def test_a_drop_in_that_sshd_refuses_is_taken_back(
        self, bare: Machine, old: str | None
    ) -> None:
        drop_in = bare.root / DROP_IN
        if old:
            drop_in.write_text(old)
        pretend(bare, "/usr/sbin/sshd", f"grep -q ForceCommand /{DROP_IN} || exit 0\nexit 255\n")
        done = bare.dataserver(*SETUP, "--replace", check=False)
        assert done.returncode == 1
        assert "sshd rejects" in done.stderr
        assert (drop_in.read_text() if drop_in.exists() else None) == old
        assert accounts(bare) != []

    def test_a_home_that_others_may_write_to_is_refused(self, bare: Machine) -> None:
        before = bare.run("stat", "-c", "%u %a", HOME).stdout.split()

        def is_refused(change: tuple[str, str]) -> None:
            bare.run(*change, HOME)
            done = bare.dataserver(*SETUP, check=False)
            bare.run("chown", before[0], HOME)
            bare.run("chmod", before[1], HOME)
            assert done.returncode == 2
            assert f"chmod go-w {HOME}" in done.stderr
            assert accounts(bare) == []

        assert failures(is_refused, [("chown", "1"), ("chmod", "g+w"), ("chmod", "o+w")]) == {}

    def test_the_service_user_cannot_lead_root_elsewhere(self, bare: Machine) -> None:
        (bare.home / "var/spool").symlink_to("/etc")
        done = bare.dataserver(*SETUP, "--alias", ALIAS, check=False)
        assert done.returncode == 1
        assert not (bare.root / "etc/pandora").exists()

    def test_a_broken_instance_holds_up_nobody(self, bare: Machine) -> None:
        broken = bare.home / "instances/broken"
        broken.mkdir()
        (broken / "instance.toml").write_text("data_in = ")
        done = bare.dataserver(*SETUP)
        assert "broken" in done.stderr
        assert done.stderr.count("\n") == 1
        assert problems(bare) == []

    def test_sshd_that_reads_no_drop_ins_is_told(self, bare: Machine) -> None:
        (bare.root / "etc/ssh/sshd_config").write_text("UsePAM yes\n")
        assert "sshd_config includes" in bare.dataserver(*SETUP).stdout
        assert any("sshd_config includes" in each for each in problems(bare))

    def test_aliases_are_kept_until_their_instance_is_gone(self, bare: Machine) -> None:
        beta = bare.home / "instances/beta"
        (beta / "data_in").mkdir(parents=True)
        (beta / "instance.toml").write_text('data_in = "data_in"\n')
        bare.dataserver(*SETUP, "--alias", ALIAS, "--alias", "/old/in=beta")
        bare.dataserver(*SETUP)
        paths = bare.home / "uploads/paths"
        assert f"{ALIAS} main {HOME}/data_in\n" in paths.read_text()
        assert f"/old/in beta {HOME}/instances/beta/data_in\n" in paths.read_text()
        assert (bare.home / "old/in").readlink() == Path("../instances/beta/data_in")
        (beta / "instance.toml").write_text("data_in = ")
        bare.dataserver(*SETUP)
        assert f"/old/in beta {HOME}/instances/beta/data_in\n" in paths.read_text()
        (beta / "instance.toml").unlink()
        assert "alias /old/in is dropped" in bare.dataserver(*SETUP).stdout
        assert "/old/in" not in paths.read_text()


def test_without_install_it_only_writes_files(dataserver: Run, tmp_path: Path) -> None:
    dataserver("init", tmp_path / "home")
    out = tmp_path / "out"
    done = dataserver("--home", tmp_path / "home", "uploads", "setup", "--out", out)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"README.md", "paths", "receive", "sshd.conf", "sysusers.conf"}
    assert not (tmp_path / "home/uploads").exists()


@pytest.mark.parametrize(
    ("directory", "point"), [("/run/far", "/run/far"), ("/var/lib/far", "/var/spool/far")]
)
def test_a_drop_directory_outside_of_the_home_can_be_mounted_into_it(
    bare: Machine, directory: str, point: str
) -> None:
    instance = bare.home / "instances/far"
    instance.mkdir()
    bare.run("mkdir", directory)
    (instance / "instance.toml").write_text(f'data_in = "{directory}"\n')
    told = bare.dataserver(*SETUP).stdout
    with bare.sshd() as port:
        agent = replace(bare, port=port).agent("far")
        packets = [agent.packet(f"far.{number}.data") for number in range(4)]
        assert agent.scp(SCP, "-O", packets[0], f":{directory}").returncode == 0
        assert agent.scp(UPLOAD, packets[1], f":{directory}/").returncode != 0
        remedy, _, rest = told.partition("mount it there: ")[2].partition(" (and")
        bare.run("sh", "-c", remedy)
        assert (f"--alias {point}=far" in rest) is (point != directory)
        options = ("--alias", f"{point}=far") if point != directory else ()
        assert "outside" not in bare.dataserver(*SETUP, *options).stdout
        assert agent.scp(UPLOAD, packets[2], f":{point}/").returncode == 0
        assert agent.scp(SCP, "-O", packets[3], f":{point}/").returncode == 0
    assert len(list((bare.root / directory.lstrip("/")).iterdir())) == 3
    assert problems(bare, "far") == []


#: What breaks it, what mends it, and what is told in between.
FAULTS = (
    ("chmod 2770 data_in", "chmod 2730 data_in", "mode 2770"),
    ("chown root data_in", "chown dataserver data_in", "belongs to 0"),
    ("chmod g+w uploads/authorized_keys", "chmod 644 uploads/authorized_keys", "mode 664"),
    ("chmod 600 uploads/authorized_keys", "chmod 644 uploads/authorized_keys", "mode 600"),
    ("chown 1 uploads", "chown 0 uploads", "belongs to user 1"),
    ("chmod -x uploads/receive", "chmod +x uploads/receive", "chmod 755"),
    ("chmod g+w .", "chmod g-w .", "only root may write"),
    ("gpasswd -d dataserver dataserver-upload", "gpasswd -a dataserver dataserver-upload",
     "is not in group"),
    ("usermod -s /usr/sbin/nologin dataserver-scp", "usermod -s /bin/sh dataserver-scp",
     "has the shell"),
    ("rm var/spool/pandora/data_in", "ln -s ../../../data_in var/spool/pandora/data_in",
     "does not lead to"),
    ("sed -i.old /^.data_in/d uploads/paths", "mv uploads/paths.old uploads/paths", "lacks"),
    ("echo AllowUsers admin >/etc/ssh/sshd_config.d/a.conf", "rm /etc/ssh/sshd_config.d/a.conf",
     "does not include dataserver-upload"),
    ("printf 'Match User dataserver-*\\nAllowTcpForwarding yes\\n' "
     ">/etc/ssh/sshd_config.d/a.conf", "rm /etc/ssh/sshd_config.d/a.conf",
     "sshd has AllowTcpForwarding yes for dataserver-upload"),
    ("echo nonsense >>uploads/authorized_keys", "sed -i /nonsense/d uploads/authorized_keys",
     "is not a key"),
)  # fmt: skip


def test_check_finds_what_is_not_in_order(host: Machine) -> None:
    def is_found(case: tuple[str, str, str]) -> None:
        breaking, mending, told = case
        host.run("sh", "-c", f"cd {HOME} && {breaking}")
        found = problems(host)
        host.run("sh", "-c", f"cd {HOME} && {mending}")
        assert any(told in each for each in found), found

    assert failures(is_found, FAULTS) == {}
    assert problems(host) == []


def test_a_key_that_is_not_restricted_is_a_problem_and_shown(host: Machine) -> None:
    host.agent("web1")
    keys = host.home / "uploads/authorized_keys"
    before = keys.read_text()
    keys.write_text(before.replace("restrict ", ""))
    try:
        assert any("web1 is not restricted" in each for each in problems(host))
        listed = json.loads(host.dataserver("uploads", "key", "list", "--json").stdout)
        assert [(each["name"], each["restricted"]) for each in listed] == [("web1", False)]
    finally:
        keys.write_text(before)
    assert problems(host) == []
