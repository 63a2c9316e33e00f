"""Made-up agents: the servers."""

from __future__ import annotations

from dataserver.demo.kit import (
    APPLICATION,
    DATABASE,
    INTERVAL,
    MINUTE,
    NETWORK,
    Burst,
    Kit,
    World,
    above,
    machine,
    make_agent,
    version,
)
from dataserver.demo.model import Agent, Limits, Module
from dataserver.demo.noise import DAY, HOUR, chance, hour, incident, incidents

#: Seconds between two deployments, and the longest duration of one.
_DEPLOYMENTS = (int(2.5 * DAY), 50 * MINUTE)


def web1(world: World) -> Agent:
    kit = Kit(world, "web1")
    modules = [
        *machine(kit),
        kit.disk("Disk /", least=38, most=86, period=int(8.2 * DAY), now=0.55),
        kit.counter("Requests", 41.0, unit="1/s", group=APPLICATION),
        kit.counter("Bytes sent", 310_000.0, unit="B/s", group=NETWORK),
        _response_time(kit),
        kit.switch("nginx", every=int(5.3 * DAY), longest=35 * MINUTE, group=APPLICATION),
        version(kit, "nginx version", world.end - 9 * DAY, "1.26.2", "1.26.3"),
    ]
    about = "The shop's pages: busy by day, quiet at night"
    return make_agent(
        world, "web1", modules, alias="web1 (shop)", group="Web", description=about, host=11
    )


def web2(world: World) -> Agent:
    kit = Kit(world, "web2")
    rebooted = world.end - int(5.2 * DAY)
    modules = [
        *machine(kit, load=0.4),
        kit.counter("Requests", 27.0, booted=rebooted, unit="1/s", group=APPLICATION),
        kit.counter("Bytes sent", 190_000.0, booted=rebooted, unit="B/s", group=NETWORK),
        _response_time(kit),
        # Down at the end of the history, and up again a while later.
        kit.switch("nginx", down=(-40 * MINUTE, 25 * MINUTE), group=APPLICATION),
    ]
    about = "The shop's second server; rebooted some days ago, its counters were reset"
    return make_agent(
        world,
        "web2",
        modules,
        alias="web2 (shop)",
        group="Web",
        description=about,
        host=12,
        sends=lambda time: not rebooted - 12 * MINUTE <= time < rebooted,
    )


def _response_time(kit: Kit) -> Module:
    return kit.level(
        "Response time",
        90,
        day=70,
        slow=15,
        quick=25,
        step=5,
        unit="ms",
        burst=Burst(1_300, int(2.3 * DAY), 50 * MINUTE),
        limits=above(400, 1_000),
        description="Of the start page, median of ten requests",
        group=APPLICATION,
    )


def db1(world: World) -> Agent:
    kit = Kit(world, "db1")
    modules = [
        *machine(kit, load=1.0),
        kit.disk("Disk /var/lib/mysql", least=47, most=84, period=int(13 * DAY), now=0.62),
        kit.level(
            "Connections",
            18,
            day=46,
            slow=6,
            quick=7,
            step=1,
            group=DATABASE,
            limits=above(90, 140),
        ),
        kit.level(
            "Replication lag",
            0,
            step=1,
            unit="s",
            burst=Burst(540, int(1.4 * DAY), 55 * MINUTE),
            limits=above(60, 300),
            group=DATABASE,
        ),
        kit.counter("Queries", 230.0, unit="1/s", group=DATABASE),
        kit.switch("MariaDB", every=int(9.1 * DAY), longest=15 * MINUTE, group=DATABASE),
    ]
    about = "The shop's database; its replica falls behind now and then"
    return make_agent(
        world, "db1", modules, alias="db1", group="Databases", description=about, host=21
    )


def backup(world: World) -> Agent:
    kit = Kit(world, "backup1")
    luck = kit.key("luck")

    def ends(night: int) -> float:
        return 2.6 + 1.4 * chance(luck, night)

    def job(time: int) -> str:
        local = kit.local(time)
        now, end = hour(local), ends(local // DAY)
        if 1.0 <= now < end:
            return "running"
        return "verifying" if end <= now < end + 0.5 else "idle"

    def has_ended(time: int) -> bool:
        local = kit.local(time)
        return 0 <= (hour(local) - ends(local // DAY)) * HOUR < INTERVAL

    def log_line(time: int) -> str | None:
        if not has_ended(time):
            return None
        night = kit.local(time) // DAY
        errors = int(3 * chance(luck + 2, night)) if chance(luck + 1, night) < 0.25 else 0
        size, minutes = 180 + 70 * chance(luck + 3, night), (ends(night) - 1) * 60
        return f"backup of {size:.1f} GB finished after {minutes:.0f} min, {errors} errors"

    def took(time: int) -> str | None:
        return f"{(ends(kit.local(time) // DAY) - 1) * 60:.0f}" if has_ended(time) else None

    group = APPLICATION
    modules = [
        *machine(kit, load=0.3),
        # Filling up at the end of the history.
        kit.disk("Disk /backup", least=34, most=93, period=int(6.3 * DAY), now=0.87),
        kit.text("Job", job, group=group, limits=Limits(warning_text="^verifying$")),
        Module("Duration", "async_data", took, "min", "Of the last backup", group),
        kit.log("Log", log_line, group=group, limits=Limits(warning_text=r"[1-9]\d* errors")),
    ]
    about = "Fills its disk until old backups are removed; runs at night"
    return make_agent(
        world, "backup1", modules, alias="backup1", group="Servers", description=about, host=51
    )


def erp(world: World) -> Agent:
    kit = Kit(world, "erp-old")
    silent = world.end - int(5.4 * HOUR)
    modules = [
        *machine(kit, load=0.8),
        kit.disk("Disk /u01", least=66, most=78, period=19 * DAY, now=0.7),
        kit.level("Users", 3, day=37, quick=4, step=1, group=APPLICATION),
        kit.switch("Print queue", every=3 * DAY, longest=2 * HOUR, group=APPLICATION),
    ]
    about = "Went silent some hours ago: its last values may no longer be true"
    return make_agent(
        world,
        "erp-old",
        modules,
        alias="erp-old",
        group="Applications",
        system=("AIX", "7.2"),
        description=about,
        host=61,
        sends=lambda time: time < silent,
    )


def shop(world: World) -> Agent:
    kit = Kit(world, "shop-app")
    deploys = (kit.key("deployments"), *_DEPLOYMENTS)

    def state(time: int) -> str:
        part = incident(deploys[0], time, *deploys[1:])
        if part < 0:
            return "running"
        is_bad = chance(deploys[0] + 9, time // deploys[1]) < 0.3
        return "deploying" if part < 0.6 else "degraded" if is_bad else "running"

    def release(time: int) -> str:
        return f"2026.{incidents(deploys[0], time, *deploys[1:]) % 1000}"

    limits = Limits(warning_text="^deploying$", critical_text="^(degraded|stopped)$")
    modules = [
        *machine(kit, load=0.9),
        kit.saw("Heap", least=420, most=1_900, period=7 * HOUR, step=20, unit="MB"),
        kit.level(
            "Orders waiting", 2, day=9, quick=3, step=1, burst=Burst(140, 3 * DAY, HOUR),
            limits=above(40, 100), group=APPLICATION,
        ),
        kit.counter("Orders", 0.7, unit="1/s", group=APPLICATION),
        kit.text("State", state, limits=limits, group=APPLICATION),
        kit.text("Release", release, group=APPLICATION),
    ]  # fmt: skip
    about = "The shop itself: a new release every few days, some of which go wrong"
    return make_agent(
        world, "shop-app", modules, alias="Shop", group="Applications", description=about, host=13
    )
