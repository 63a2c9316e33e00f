"""Settings: sources and their order, origins, what is refused and how it is said."""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import UTC
from pathlib import Path
from types import NoneType
from zoneinfo import ZoneInfo

import pytest

from dataserver.cli.config import reference
from dataserver.config.kinds import masked, size_text
from dataserver.config.load import load, variable
from dataserver.config.paths import Home
from dataserver.config.settings import ABOUT, Settings
from dataserver.errors import ConfigError, UsageError
from tests.support.failures import failures

ROOT = Path(__file__).parents[2]
MIB = 2**20


def loaded(home: Home, **environment: str) -> Settings:
    return load(home.instance(), environment)


def complaint(home: Home, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(home, **environment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestSources:
    def test_without_any_source_the_defaults_hold(self, home: Home) -> None:
        settings = loaded(home)
        assert settings.max_packet == 64 * MIB
        assert settings.origins["max_packet"] == "default"

    def test_the_shared_file_wins_over_the_defaults(self, home: Home) -> None:
        home.config.write_text("settle = 7\n")
        settings = loaded(home)
        assert settings.settle == 7.0
        assert settings.origins["settle"] == str(home.config)

    def test_the_instance_wins_over_the_shared_file(self, home: Home) -> None:
        home.config.write_text("settle = 7\n")
        home.instance().config.write_text("settle = 8\n")
        settings = loaded(home)
        assert settings.settle == 8.0
        assert settings.origins["settle"] == str(home.instance().config)

    def test_the_environment_wins_over_all_files(self, home: Home) -> None:
        home.instance().config.write_text("settle = 8\n")
        settings = loaded(home, DATASERVER_SETTLE="9.5")
        assert settings.settle == 9.5
        assert settings.origins["settle"] == "environment"

    def test_an_instance_that_is_not_there_names_those_that_are(self, home: Home) -> None:
        with pytest.raises(UsageError, match="existing instances: main"):
            load(home.instance("beta"), {})

    def test_a_directory_that_is_no_home_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="dataserver init"):
            load(Home(tmp_path).instance(), {})

    def test_variables_of_others_with_our_prefix_are_left_alone(self, home: Home) -> None:
        assert loaded(home, DATASERVER_SERVICE_HOST="10.0.0.1", DATASERVER_HOME="/x") == loaded(
            home
        )

    def test_every_setting_can_be_set_in_the_environment(self, home: Home) -> None:
        values = {bool: "true", int: "70", float: "2.5"}
        special = {
            "database": "mysql://u@h/n",
            "timezone": "Europe/Madrid",
            "checksum": "verify",
            "settle_max": "80",
            "log_level": "debug",
            "max_packet": "1MiB",
            "batch_bytes": "1MiB",
        }
        for key in ABOUT.keys() - {"database_password_file"}:
            default = type(getattr(Settings(), key))
            text = special.get(key) or values.get(default, "text")
            settings = loaded(home, **{variable(key): text})
            assert settings.origins[key] == "environment"
            assert isinstance(getattr(settings, key), str if default is NoneType else default)


class TestPaths:
    def test_data_in_is_relative_to_the_instances_file(self, home: Home) -> None:
        assert loaded(home).data_in == home.root / "data_in"

    def test_without_data_in_it_lies_beside_the_instances_file(self, home: Home) -> None:
        home.instance().config.write_text("")
        assert loaded(home).data_in == home.instance().folder / "data_in"

    def test_in_the_environment_paths_are_relative_to_the_home(self, home: Home) -> None:
        assert loaded(home, DATASERVER_DATA_IN="drop").data_in == home.root / "drop"

    def test_data_in_may_not_be_shared_by_all_instances(self, home: Home) -> None:
        home.config.write_text('data_in = "x"\n')
        assert "data_in cannot be the same for all instances" in complaint(home)


class TestValues:
    def test_sizes_are_bytes_or_text_with_a_unit(self, home: Home) -> None:
        sizes = {
            "1048576": MIB,
            '"64MB"': 64_000_000,
            '"64 MiB"': 64 * MIB,
            '"1 gib"': 1024 * MIB,
            '"2000 kB"': 2_000_000,
        }
        found = {}
        for text in sizes:
            home.config.write_text(f"max_packet = {text}\n")
            found[text] = loaded(home).max_packet
        assert found == sizes

    def test_switches_in_the_environment_take_the_usual_words(self, home: Home) -> None:
        words = {"yes": True, "ON": True, "0": False, "false": False}
        assert {w: loaded(home, DATASERVER_AUTOCREATE=w).autocreate for w in words} == words

    def test_a_switch_in_a_file_is_a_boolean_or_on_or_off(self, home: Home) -> None:
        for text, value in {"true": True, '"on"': True, '"off"': False}.items():
            home.config.write_text(f"unknown = {text}\n")
            assert loaded(home).unknown is value, text

    def test_a_wrong_value_names_key_file_and_what_is_allowed(self, home: Home) -> None:
        lines = [
            "settle = true",
            'settle = "5"',
            "settle = nan",
            "settle = -1",
            "ledger_days = 0",
            "ledger_days = 1.5",
            'autocreate = "yes"',
            "autocreate = 1",
            'checksum = "maybe"',
            "server_name = 5",
            'server_name = ""',
            'server_name = "a\\nb"',
            'max_packet = "64 apples"',
            "max_packet = 1.5",
            'max_packet = "1"',
            'timezone = "Europe/Nowhere"',
            'timezone = "../../etc/passwd"',
            'database = "postgresql://h/n"',
            'database = "sqlite://"',
            'database = ""',
            'database = "mysql://u@h:abc/n"',
            'database = "mysql://u@h:0/n"',
            'database = "mysql://u@h:65536/n"',
            'database = "mysql://u@h:/n"',
            'database = "mysql://u@::1/n"',
            'database_password_file = ""',
            "checksum = []",
        ]

        def check(line: str) -> None:
            home.config.write_text(line + "\n")
            key = line.partition(" ")[0]
            text = complaint(home)
            assert str(home.config) in text
            assert key in text
            assert ABOUT[key].kind.allowed in text

        assert failures(check, lines) == {}

    def test_a_wrong_value_in_the_environment_names_the_key(self, home: Home) -> None:
        assert "DATASERVER_SETTLE = 'soon'" in complaint(home, DATASERVER_SETTLE="soon")

    def test_a_misspelt_key_suggests_the_right_one(self, home: Home) -> None:
        home.config.write_text("max_pakcet = 1\n")
        assert "did you mean 'max_packet'?" in complaint(home)

    def test_an_unknown_key_that_resembles_none_says_where_all_are(self, home: Home) -> None:
        home.config.write_text("zzz = 1\n")
        assert "config show" in complaint(home)

    def test_a_table_is_an_unknown_key(self, home: Home) -> None:
        home.config.write_text("[main]\nsettle = 1\n")
        assert "there is no setting 'main'" in complaint(home)

    def test_a_misspelt_variable_suggests_the_right_one(self, home: Home) -> None:
        assert "did you mean DATASERVER_SETTLE?" in complaint(home, DATASERVER_SETLE="1")

    def test_broken_toml_names_the_file_and_the_place(self, home: Home) -> None:
        home.config.write_text("settle = \n")
        assert f"{home.config} is not TOML" in complaint(home)

    def test_a_file_that_is_not_utf8_is_an_error_like_others(self, home: Home) -> None:
        home.config.write_bytes(b'server_name = "\xff"\n')
        assert f"{home.config} is not TOML" in complaint(home)

    def test_what_no_reader_can_take_is_an_error_like_others(self, home: Home) -> None:
        def check(text: str) -> None:
            home.config.write_text(text)
            with pytest.raises(ConfigError, match=r"dataserver\.toml is not TOML"):
                load(home.instance(), {})

        texts = [
            "a = " + "[" * 5000,
            "a = " + "1" * 5000,
            "scan_interval = 0x" + "f" * 6000,
            "#" * 2**20 + "#",
        ]
        assert failures(check, texts) == {}

    def test_a_pipe_is_not_waited_for(self, home: Home) -> None:
        home.config.unlink(missing_ok=True)
        os.mkfifo(home.config)
        with pytest.raises(ConfigError, match="it is a pipe"):
            load(home.instance(), {})

    def test_an_instance_whose_file_is_none_is_told_so(self, home: Home) -> None:
        home.instance().config.unlink()
        home.instance().config.mkdir()
        with pytest.raises(UsageError, match=r"instance\.toml is not a file"):
            load(home.instance(), {})

    def test_settle_may_not_be_longer_than_settle_max(self, home: Home) -> None:
        home.config.write_text("settle = 30\nsettle_max = 20\n")
        assert "settle_max = 20" in complaint(home)


class TestSecrets:
    def test_the_password_file_is_read_beside_the_file_that_names_it(self, home: Home) -> None:
        home.config.write_text('database_password_file = "secret"\n')
        (home.root / "secret").write_text("hush hush \nsecond line\n")
        settings = loaded(home)
        assert settings.database_password == "hush hush "
        assert settings.origins["database_password"] == str(home.root / "secret")

    def test_only_a_line_end_ends_the_password_in_its_file(self, home: Home) -> None:
        home.config.write_text('database_password_file = "secret"\n')
        (home.root / "secret").write_text("a\x0cb\x85c\u2028d\nmore\n", "utf-8")
        assert loaded(home).database_password == "a\x0cb\x85c\u2028d"

    def test_the_environments_password_wins_over_the_file(self, home: Home) -> None:
        home.config.write_text('database_password_file = "missing"\n')
        settings = loaded(home, DATASERVER_DATABASE_PASSWORD="hush")
        assert settings.database_password == "hush"

    def test_a_missing_password_file_is_named(self, home: Home) -> None:
        home.config.write_text('database_password_file = "missing"\n')
        assert str(home.root / "missing") in complaint(home)

    def test_an_empty_password_file_is_refused(self, home: Home) -> None:
        home.config.write_text('database_password_file = "secret"\n')
        (home.root / "secret").write_text("")
        assert "is empty" in complaint(home)

    def test_a_password_in_a_settings_file_is_refused_without_showing_it(self, home: Home) -> None:
        home.config.write_text('database_password = "hush"\n')
        text = complaint(home)
        assert "database_password_file" in text
        assert "hush" not in text

    def test_no_password_is_ever_shown(self, home: Home) -> None:
        settings = loaded(
            home,
            DATASERVER_DATABASE="mysql://me:hush@host/name",
            DATASERVER_DATABASE_PASSWORD="hush",
        )
        assert settings.shown("database") == '"mysql://me:***@host/name"'
        assert settings.shown("database_password") == '"***"'
        assert "hush" not in repr(settings)

    def test_a_wrong_url_is_refused_without_its_password(self, home: Home) -> None:
        home.config.write_text('database = "oracle://me:hush@host/name"\n')
        assert "hush" not in complaint(home)

    def test_urls_of_databases_are_taken_as_they_are(self, home: Home) -> None:
        def check(url: str) -> None:
            home.config.write_text(f'database = "{url}"\n')
            assert load(home.instance(), {}).database == url

        urls = [
            "mysql:///n",
            "mysql://h/n",
            "mysql://u@h:3306/n",
            "mariadb://u:p:q@w@h:1/n?ssl_ca=/ca.pem",
            "mysql+mysqldb://pan%2Fdora@[fe80::1]:65535/pandora",
            "sqlite:////var/lib/x.db",
        ]
        assert failures(check, urls) == {}

    def test_a_urls_password_is_masked(self) -> None:
        shown = {
            "mysql://u:p@h/n": "mysql://u:***@h/n",
            "mysql://u:p@ss:w/rd@h/n": "mysql://u:***@h/n",
            "mysql://h/n?passwd=p&charset=x": "mysql://h/n?passwd=***&charset=x",
            "sqlite:///a/b.db": "sqlite:///a/b.db",
            "mysql://u@h:3306/n": "mysql://u@h:3306/n",
        }
        assert {text: masked(text) for text in shown} == shown


class TestZone:
    def test_a_named_zone_is_that_zone(self, home: Home) -> None:
        home.config.write_text('timezone = "Europe/Madrid"\n')
        assert loaded(home).zone({}) == ZoneInfo("Europe/Madrid")

    def test_without_a_name_tz_decides(self) -> None:
        assert Settings().zone({"TZ": ":Asia/Tokyo"}) == ZoneInfo("Asia/Tokyo")

    def test_an_empty_tz_is_utc(self) -> None:
        assert Settings().zone({"TZ": ""}) is UTC

    def test_a_zone_of_rules_in_tz_asks_for_the_setting(self) -> None:
        with pytest.raises(ConfigError, match="timezone"):
            Settings().zone({"TZ": "CET-1CEST,M3.5.0,M10.5.0/3"})


class TestReference:
    def test_the_configuration_reference_is_fresh(self) -> None:
        assert (ROOT / "docs/configuration.md").read_text("utf-8") == reference(), "run: make docs"

    def test_every_field_says_what_it_is(self) -> None:
        assert {each.name for each in fields(Settings)} - ABOUT.keys() == {"origins"}
        assert all(about.meaning.endswith(".") for about in ABOUT.values())

    def test_every_default_is_allowed(self, home: Home) -> None:
        for key, about in ABOUT.items():
            default = getattr(Settings(), key)
            if default is not None and key != "data_in":
                assert about.kind.decode(default, home.root) == default

    def test_sizes_read_as_people_write_them(self) -> None:
        texts = {0: "0 B", 1023: "1023 B", 2048: "2 KiB", 64 * MIB: "64 MiB", 2**50: "1024 TiB"}
        assert {count: size_text(count) for count in texts} == texts
