"""Is any customer lost or provisioned twice when the workers are killed while customers sign up?

    .venv/bin/python -m benchmarks.provisioning_kills [--seeds 10] [--database postgresql] [--polled]

For each seed, four waves of customers sign up with a fresh service: two workers, two beats, and an
independent Management API that needs 20 ms for an answer. All workers are killed by SIGKILL once in each
wave, each time in another phase, and started again at once. Prints for each seed how many were lost or
doubled, as the API tells it, and how long after the last restart the last customer was ready. Everything
runs on loopback and ends with the command, which fails if anyone was lost or doubled.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.e2e.harness import Machine
from tests.e2e.provisioning import Outcome, Plan, Provisioning
from tests.e2e.services import FOLLOWED
from tests.support.databases import KINDS, empty_database


def run(plan: Plan, database: str, api_options: tuple[str, ...]) -> Outcome:
    """One run, from an empty database."""
    with (
        tempfile.TemporaryDirectory(prefix="gangway-kills-") as home,
        empty_database(database, Path(home)) as url,
        Machine(Path(home)) as machine,
    ):
        return Provisioning.on(machine, plan, *api_options, database_url=url).kill_in_every_phase()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--customers", type=int, default=50, help="in each of the four waves")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--polled", action="store_true", help="with an API that has no feed of changes")
    options = parser.parse_args()
    api_options = () if options.polled else (FOLLOWED,)
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    outcomes = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        outcomes.append(run(Plan(options.customers, seed), options.database, api_options))
        print(f"seed {seed}: {outcomes[-1]}", flush=True)
    lost, doubled = sum(each.lost for each in outcomes), sum(each.doubled for each in outcomes)
    latest = max(each.ready_after_s for each in outcomes)
    print(f"{lost} lost, {doubled} doubled, last ready at most {latest} s after the restart")
    if lost or doubled:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
