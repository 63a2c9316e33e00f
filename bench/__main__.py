"""The benchmark's command line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench import generator, limit
from bench.workloads import WORKLOADS, Workload


def _generate(options: argparse.Namespace) -> None:
    workload = _workload(options)
    stored = generator.write(workload, options.folder)
    print(json.dumps({"packets": sum(workload.agents for _ in stored), "stored": stored}))


def _limit(options: argparse.Namespace) -> None:
    workload = _workload(options)
    rounds = [
        list(generator.round_folder(options.folder, turn).iterdir())
        for turn in range(workload.rounds)
    ]
    before = [path for paths in rounds[: workload.measured] for path in paths]
    measured = [path for paths in rounds[workload.measured :] for path in paths]
    print(json.dumps(asdict(limit.measure(options.url, before, measured))))


def _workload(options: argparse.Namespace) -> Workload:
    workload = WORKLOADS[options.workload]
    return workload.quick() if options.quick else workload


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    generate = commands.add_parser("generate", help="write a workload's packets, a folder a round")
    generate.set_defaults(run=_generate)
    lim = commands.add_parser("limit", help="measure the limit of a generated workload")
    lim.set_defaults(run=_limit)
    for command in (generate, lim):
        command.add_argument("workload", choices=list(WORKLOADS))
        command.add_argument("folder", type=Path)
        command.add_argument("--quick", action="store_true")
    lim.add_argument("url")
    return parser


if __name__ == "__main__":
    chosen = _parser().parse_args()
    chosen.run(chosen)
    sys.exit()
