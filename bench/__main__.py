"""Measure the data server, and the limit that this machine sets it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from bench import generator, instances, report
from bench.errors import BenchError
from bench.measure import Bench, Result
from bench.server import installed
from bench.stores import STORES
from bench.workloads import WORKLOADS, Workload, chosen

#: What of the console is measured.
_PARTS = ("year", "agents", "load")


def main() -> int:
    """Run the command line; 1 where a measurement failed."""
    options = _parser().parse_args()
    return int(options.run(options))


def _measure(options: argparse.Namespace) -> bool:
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="dataserver-bench-", dir=options.dir) as name:
        machine = report.machine(Path(name))
        for store in options.stores:
            with _telling(store), STORES[store](Path(name)) as opened:
                bench = Bench(options.server, opened, Path(name), _say)
                results += _measure_each(bench, store, options)
    _say("")
    _show(machine, results, options.json)
    return len(results) < len(options.stores) * len(options.only)


def _measure_each(bench: Bench, store: str, options: argparse.Namespace) -> Iterator[Result]:
    """The workloads; one that fails is told and left out."""
    for workload in options.only:
        with _telling(f"{workload.name} on {store}"):
            yield bench.measure(workload.quick() if options.quick else workload)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Tell what went wrong in the block, and go on."""
    try:
        yield
    except BenchError as error:
        _say("")
        print(f"{what}: {error}", file=sys.stderr)


def _show(machine: dict[str, object], results: list[Result], target: Path | None) -> None:
    print(report.machine_line(machine), report.table(results), sep="\n\n")
    print(*filter(None, map(report.latency, results)), sep="\n")
    if target:
        figures = {"machine": machine, "results": report.as_json(results)}
        target.write_text(json.dumps(figures, indent=1) + "\n")


def _say(text: str) -> None:
    """What is being done, on one line that is written over; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _instances(options: argparse.Namespace) -> bool:
    results: list[instances.Result] = []
    workload = WORKLOADS["W1"].quick() if options.quick else WORKLOADS["W1"]
    with tempfile.TemporaryDirectory(prefix="dataserver-bench-", dir=options.dir) as name:
        machine = report.machine(Path(name))
        for store in options.stores:
            with _telling(store), STORES[store](Path(name)) as opened:
                bench = instances.Bench(options.server, opened, Path(name), _say, workload=workload)
                # In turns, so that what slows the machine for a while slows them all.
                for count in options.counts * options.repeat:
                    with _telling(f"{count} instances on {store}"):
                        results += bench.measure(count)
    _say("")
    print(report.machine_line(machine), instances.table(results), sep="\n\n")
    if options.json:
        figures = {"machine": machine, "results": instances.as_json(results)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    everything: int = len(options.stores) * len(options.counts) * options.repeat
    return len(results) < everything * len(instances.STARTS)


def _console(options: argparse.Namespace) -> bool:
    # Imported here only, as the limit is.
    from bench import console, console_beside, console_report  # noqa: PLC0415

    results: list[console_report.Result] = []
    size = console_beside.Size(runs=options.runs, pairs=options.pairs, rate=options.rate)
    size = size.quick() if options.quick else size
    with tempfile.TemporaryDirectory(prefix="dataserver-bench-", dir=options.dir) as name:
        machine = report.machine(Path(name))
        for store in options.stores:
            with _telling(store), console.opened(store, Path(name)) as opened:
                bench = console.Bench(options.server, opened, Path(name), _say, size)
                for part in options.parts:
                    with _telling(f"{part} on {store}"):
                        results += bench.measure(part)
    _say("")
    print(report.machine_line(machine), console_report.tables(results), sep="\n\n")
    if options.json:
        figures = {"machine": machine, "results": console_report.as_json(results)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return not console_report.is_whole(results, options.stores, options.parts)


def _generate(options: argparse.Namespace) -> bool:
    workload = WORKLOADS[options.workload]
    workload = workload.quick() if options.quick else workload
    stored = generator.write(workload, options.folder)
    print(json.dumps({"packets": workload.agents * workload.rounds, "stored": stored}))
    return False


def _limit(options: argparse.Namespace) -> bool:
    # Imported here only: a measuring process must stay smaller than the server it starts.
    from bench import limit  # noqa: PLC0415

    rounds = sorted(options.folder.iterdir())
    measured = WORKLOADS[options.workload].measured
    figures = limit.measure(options.url, _files(rounds[:measured]), _files(rounds[measured:]))
    print(json.dumps(asdict(figures)))
    return False


def _files(folders: list[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.iterdir()]


def _workloads(names: str) -> list[Workload]:
    try:
        return chosen(names)
    except KeyError as error:
        known = ", ".join(WORKLOADS)
        raise argparse.ArgumentTypeError(f"no workload {error}; there are {known}") from error


def _names(known: Sequence[str], names: str) -> list[str]:
    for name in names.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {name!r}; there are {', '.join(known)}")
    return names.split(",")


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",") if part.isdecimal() and int(part) > 0]
    if len(numbers) < text.count(",") + 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,2,4")
    return numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.set_defaults(run=_measure)
    _add_common(parser)
    parser.add_argument(
        "--only", type=_workloads, default=list(WORKLOADS.values()), metavar="W1,wide,..."
    )
    steps = parser.add_subparsers(title="another measurement, and single steps")
    several = steps.add_parser("instances", help="measure several instances on one database")
    several.set_defaults(run=_instances)
    _add_common(several)
    several.add_argument("--counts", type=_numbers, default=[1, 2, 4], metavar="1,2,4")
    several.add_argument("--repeat", type=int, default=1, metavar="N", help="show medians")
    looked = steps.add_parser("console", help="measure the console: much data, and beside W1")
    looked.set_defaults(run=_console)
    _add_common(looked, stores=(*STORES, "pandora"))
    looked.add_argument("--parts", type=partial(_names, _PARTS), default=_PARTS)
    looked.add_argument("--runs", type=int, default=30, metavar="N", help="of each page")
    looked.add_argument("--pairs", type=int, default=4, metavar="N", help="of runs beside W1")
    looked.add_argument("--rate", type=float, default=50, metavar="N", help="requests a second")
    _add_step(steps.add_parser("generate", help="write packets, a folder a round"), _generate)
    _add_step(steps.add_parser("limit", help="measure the limit of written packets"), _limit)
    steps.choices["generate"].add_argument("--quick", action="store_true")
    steps.choices["limit"].add_argument("url", help="an empty database")
    return parser


def _add_common(parser: argparse.ArgumentParser, stores: Iterable[str] = STORES) -> None:
    add = parser.add_argument
    add("--quick", action="store_true", help="a tenth of the agents: to try the benchmark itself")
    kinds = list(stores)
    add("--stores", type=partial(_names, kinds), default=kinds, metavar=",".join(kinds))
    add("--dir", type=Path, help="where to work: a folder on the filesystem to be measured")
    add("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    add("--server", type=shlex.split, default=installed(), help="the command to be measured")


def _add_step(step: argparse.ArgumentParser, run: object) -> None:
    step.set_defaults(run=run)
    step.add_argument("workload", choices=list(WORKLOADS))
    step.add_argument("folder", type=Path)


if __name__ == "__main__":
    sys.exit(main())
