"""Every fault measured, as `make failover` does; prints the table that docs/failover.md shows.

::

    python -m tests.failover [--repeat N] [--advert-int 1,0.2] [--fault TEXT] [--verbose]
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.failover import network
from tests.failover.faults import FAULTS
from tests.failover.lab import Lab, lab
from tests.failover.measure import Outcome, measure

_HEAD = (
    "fault",
    "`advert_int`",
    "address moved after",
    "longest without an upload",
    "longest wait of a packet",
    "uploads",
    "failed tries",
    "cut, set aside",
    "taken in late",
    "lost",
    "stored twice",
)


def main() -> int:
    """Exit code 0: nothing was lost, and nothing stored twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.failover", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="each fault so often (3)")
    parser.add_argument("--advert-int", default="1,0.2", help="seconds, with commas (1,0.2)")
    parser.add_argument("--fault", default="", help="only those with this text in their name")
    parser.add_argument("--verbose", action="store_true", help="all that is known of each")
    arguments = parser.parse_args()
    # So that the end of it takes the lab's folder along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if why := network.unfit():
        print(why, file=sys.stderr)
        return 1
    names = [name for name in FAULTS if arguments.fault in name]
    intervals = [float(each) for each in arguments.advert_int.split(",")]
    rows: list[list[Outcome]] = []
    with (
        TemporaryDirectory(prefix="failover-") as folder,
        lab(Path(folder), advert_int=intervals[0]) as there,
    ):
        for interval in intervals:
            if there.advert_int != interval:
                there.form_pair(interval)
            rows += [_several(there, name, arguments) for name in names]
    print("\n".join(table(rows)))
    return int(any(each.lost or each.twice or each.wrong for row in rows for each in row))


def _several(there: Lab, name: str, arguments: argparse.Namespace) -> list[Outcome]:
    found = []
    for number in range(arguments.repeat):
        outcome = measure(there, name)
        print(
            f"{name}, {there.advert_int:g} s: {number + 1} of {arguments.repeat}", file=sys.stderr
        )
        if arguments.verbose:
            print(outcome, file=sys.stderr)
        for what in outcome.wrong:
            print(f"WRONG: {what}", file=sys.stderr)
        found.append(outcome)
    return found


def table(rows: Sequence[Sequence[Outcome]]) -> Iterator[str]:
    """Markdown: a line for each fault; of several tries the worst of each figure, and all sums."""
    yield f"| {' | '.join(_HEAD)} |"
    yield f"|{'---|' * 2}{'---:|' * (len(_HEAD) - 2)}"
    for tries in rows:
        moves = [each.moved for each in tries if each.moved is not None]
        moved = f"{max(moves):.2f} s" if moves else "stays"
        if moves and len(moves) < len(tries):
            moved += f" ({len(moves)} of {len(tries)})"
        cells = (
            tries[0].fault,
            f"{tries[0].advert_int:g} s",
            moved,
            f"{max(each.outage for each in tries):.2f} s",
            f"{max(each.slowest for each in tries):.2f} s",
            *(
                str(sum(getattr(each, key) for each in tries))
                for key in ("uploads", "failed", "stubs", "late", "lost", "twice")
            ),
        )
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
