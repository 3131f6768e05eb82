"""Does a stream end as the upstream, whoever is killed while it is filled, and how soon does it go on?

    .venv/bin/python -m benchmarks.kills [--records 50000] [--kills 30] [--seed 1] [--database postgresql]

Starts the engine with three workers beside a provider that holds so many records over five accounts, and a
consumer that reads along. While the backfill runs, records are created, changed and deleted; the engine's
processes, the consumer and, with `--redis-too`, the broker are killed by SIGKILL at random moments and
started again at once. In the end stream and consumer must equal the upstream, with each version in one
place, and no place may have appeared below one that was seen. Everything runs on loopback and ends with the
command, which fails if anything was wrong.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.e2e.chaos import Outcome, Plan, World
from tests.e2e.harness import Machine
from tests.support.databases import KINDS, empty_database


def run(plan: Plan, database: str) -> Outcome:
    """One run, from an empty database."""
    with (
        tempfile.TemporaryDirectory(prefix="gangway-kills-") as home,
        empty_database(database, Path(home)) as url,
        Machine(Path(home)) as machine,
    ):
        return World(machine, plan, url).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--kills", type=int, default=30, help="of the engine's web process and workers")
    parser.add_argument("--within", type=float, default=75.0, help="seconds that the kills are spread over")
    parser.add_argument("--changes", type=int, default=600)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--redis-too", action="store_true", help="kill the broker as well")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    options = parser.parse_args()
    plan = Plan(
        records=options.records,
        kills=options.kills,
        kills_within_s=options.within,
        changes=options.changes,
        workers=options.workers,
        seed=options.seed,
        kills_redis=options.redis_too,
    )
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}; {plan}")
    outcome = run(plan, options.database)
    for name, value in asdict(outcome).items():
        print(f"{name:<30} {value}")
    if outcome.faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
