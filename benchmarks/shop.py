"""Does a consumer end as the upstream when Stripe's own SDK changes it at random, for long?

    .venv/bin/python -m benchmarks.shop [--writes 5000] [--kills 20] [--seed 1] [--database postgresql]

Starts the engine beside localstripe. A shop creates, changes and deletes objects of ten collections while
they are backfilled and while their changes are watched; the consumer is killed by SIGKILL and started again
at random moments, the worker once. localstripe does not tell of all changes by events, so in the end all is
read again by `POST /v1/syncs/{id}/backfill`. Then the consumer must hold, object by object, what the SDK
lists. Everything runs on loopback and ends with the command, which fails if anything was wrong.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.e2e.following import Following, Outcome, Plan
from tests.e2e.harness import Machine
from tests.support.databases import KINDS, empty_database


def run(plan: Plan, database: str) -> Outcome:
    """One run, from an empty database."""
    with (
        tempfile.TemporaryDirectory(prefix="gangway-shop-") as home,
        empty_database(database, Path(home)) as url,
        Machine(Path(home)) as machine,
    ):
        return Following(machine, plan, url).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--writes", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=20, help="of the consumer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    options = parser.parse_args()
    plan = Plan(writes=options.writes, kills=options.kills, seed=options.seed)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}; {plan}")
    outcome = run(plan, options.database)
    for name, value in asdict(outcome).items():
        print(f"{name:<20} {value}")
    if outcome.faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
