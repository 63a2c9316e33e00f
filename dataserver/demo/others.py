"""Made-up agents other than servers: network devices, a sensor, a workstation, a branch office."""

from __future__ import annotations

from dataserver.demo.kit import (
    APPLICATION,
    ENVIRONMENT,
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
from dataserver.demo.model import Agent, Module
from dataserver.demo.noise import DAY, HOUR, chance, hour, incident, weekday


def router1(world: World) -> Agent:
    kit = Kit(world, "router1")
    modules = [
        kit.counter("WAN in", 2_400_000.0, unit="B/s", group=NETWORK),
        kit.counter("WAN out", 610_000.0, unit="B/s", group=NETWORK),
        kit.level("CPU", 14, day=21, slow=3, quick=4, step=1, unit="%", limits=above(80, 95)),
        kit.level(
            "Latency",
            9,
            day=5,
            slow=1,
            quick=2,
            step=0.5,
            unit="ms",
            burst=Burst(180, int(1.9 * DAY), 40 * MINUTE),
            limits=above(50, 150),
            group=NETWORK,
        ),
        kit.switch("WAN link", every=int(3.4 * DAY), longest=45 * MINUTE, group=NETWORK),
        version(kit, "Firmware", world.end - 4 * DAY - 7 * HOUR, "17.9.4a", "17.9.5"),
    ]
    about = "The way out; its link fails now and then"
    return make_agent(
        world,
        "router1",
        modules,
        alias="router1",
        group="Network",
        system=("Cisco", "IOS XE 17.9"),
        description=about,
        host=1,
    )


def coldstore(world: World) -> Agent:
    kit = Kit(world, "coldstore")
    failures = (kit.key("compressor"), int(5.6 * DAY), 5 * HOUR)
    # A failure warms the hall, by the same random incidents.
    cold = kit.level(
        "Temperature", -21.5, day=3.6, slow=1.3, quick=0.3, step=0.1, unit="°C", low=-40
    )

    def temperature(time: int) -> str:
        part = incident(failures[0], time, *failures[1:])
        warmer = 8.5 * 4 * part * (1 - part) if part >= 0 else 0.0
        return f"{float(cold.value(time) or 0) + warmer:.1f}"

    def compressor(time: int) -> str:
        return "0" if 0 <= incident(failures[0], time, *failures[1:]) < 0.5 else "1"

    limits = above(-18, -15)
    modules = [
        Module(
            "Temperature",
            "generic_data",
            temperature,
            "°C",
            "Between the racks",
            ENVIRONMENT,
            limits,
        ),
        kit.level("Humidity", 61, day=6, slow=8, step=1, unit="%", high=100, group=ENVIRONMENT),
        Module("Compressor", "generic_proc", compressor, group=ENVIRONMENT),
        kit.level("Supply voltage", 230, slow=3, quick=1.5, step=0.5, unit="V", group=ENVIRONMENT),
    ]
    about = "A sensor: warmer by day, and too warm when the compressor fails"
    return make_agent(
        world,
        "coldstore",
        modules,
        alias="Cold store, hall 2",
        group="Servers",
        system=("Embedded", "Yocto 5.0"),
        description=about,
        host=31,
    )


def desk(world: World) -> Agent:
    kit = Kit(world, "desk-12")

    def is_on(time: int) -> bool:
        local = kit.local(time)
        # The user comes a little earlier or later each day.
        late = chance(kit.key("late"), local // DAY)
        return weekday(local) < 5 and 7.4 + late <= hour(local) < 16.6 + late

    modules = [
        *machine(kit, load=0.3),
        kit.disk("Disk C:", least=61, most=79, period=17 * DAY, now=0.4),
        kit.switch("Virus scanner", every=6 * DAY, longest=2 * HOUR, group="Security"),
    ]
    about = "A workstation: switched off at night and at the weekend, which is no fault"
    return make_agent(
        world,
        "desk-12",
        modules,
        alias="desk-12 (office)",
        group="Workstations",
        system=("Windows", "Windows 11 Pro"),
        description=about,
        host=112,
        sends=is_on,
    )


def branch(world: World) -> Agent:
    kit = Kit(world, "branch-north")
    line = kit.key("line")

    def arrives(time: int) -> bool:
        if incident(line, time, int(2.7 * DAY), 3 * HOUR) >= 0:
            return False
        place = time // INTERVAL
        # Single packets are lost, hardly ever two in a row.
        return chance(line, place) > 0.16 or chance(line, place - 1) <= 0.16

    modules = [
        *machine(kit, load=0.2),
        kit.level(
            "Signal", -71, slow=9, quick=6, step=1, unit="dBm", low=-110, high=-40, group=NETWORK
        ),
        kit.counter("Bytes in", 21_000.0, unit="B/s", group=NETWORK),
        kit.switch("VPN", every=int(3.1 * DAY), longest=70 * MINUTE, group=NETWORK),
    ]
    about = "A branch office behind a shaky line: packets get lost"
    return make_agent(
        world,
        "branch-north",
        modules,
        alias="Branch office north",
        group="Servers",
        description=about,
        host=41,
        sends=arrives,
    )


def press(world: World) -> Agent:
    kit = Kit(world, "press-7")
    began = world.end - DAY
    limits = above(6, 9)
    modules = [
        kit.level(
            "Vibration", 2.2, day=1.4, quick=0.9, step=0.1, unit="mm/s", limits=limits,
            burst=Burst(7, 5 * HOUR, 25 * MINUTE), group=ENVIRONMENT,
        ),
        kit.saw("Oil temperature", least=41, most=66, period=2 * HOUR, step=0.5, unit="°C"),
        kit.counter("Parts", 0.4, unit="1/s", group=APPLICATION),
        kit.switch("Guard closed", every=4 * HOUR, longest=6 * MINUTE, group="Security"),
    ]  # fmt: skip
    about = "A machine that sends every 30 seconds, new since yesterday"
    return make_agent(
        world,
        "press-7",
        modules,
        alias="Press 7",
        group="Applications",
        system=("Other", "PLC gateway 2.1"),
        description=about,
        host=71,
        interval=30,
        sends=lambda time: time >= began,
    )


def firewall(world: World) -> Agent:
    kit = Kit(world, "fw1")
    modules = [
        kit.level("Sessions", 900, day=2_700, slow=150, quick=200, step=50, group=NETWORK),
        kit.counter("Packets dropped", 3.1, unit="1/s", group="Security"),
        kit.level("CPU", 7, day=12, quick=3, step=1, unit="%", limits=above(70, 90)),
        kit.switch("Standby reachable", every=8 * DAY, longest=3 * HOUR, group=NETWORK),
        version(kit, "Rules", world.end - 2 * DAY - 3 * HOUR, "revision 1184", "revision 1185"),
    ]
    about = "Between inside and outside"
    return make_agent(
        world,
        "fw1",
        modules,
        alias="fw1",
        group="Firewalls",
        system=("BSD", "OpenBSD 7.6"),
        description=about,
        host=2,
    )
