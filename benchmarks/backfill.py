"""How fast do large backfills run, at what cost in CPU and memory?

    .venv/bin/python -m benchmarks.backfill [--records 1000000] [--syncs 20] [--workers 2] [--dlt PYTHON]

Starts the engine (Redis, web, workers) in a temporary directory beside a provider that lists customers as
Stripe does, creates the syncs, each with an account of its own, and prints throughput, CPU per record and
the largest memory of each process. With `--dlt PYTHON`, a Python that has `requirements/benchmarks.txt`
installed, dlt then reads the same accounts from the same server into a database of the same kind.
Everything runs on loopback and ends with the command.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from sqlmodel import create_engine, func, select

from engine.tables import Record
from tests.e2e.harness import Machine, Redis
from tests.e2e.peers import BulkStripe
from tests.e2e.services import Engine
from tests.support.databases import KINDS, empty_database

READER: Final = Path(__file__).with_name("dlt_reader.py")
TICKS: Final = os.sysconf("SC_CLK_TCK")
UNLIMITED: Final = {"allowed_requests": 100_000, "interval": 1}
GIVE_UP_AFTER_S: Final = 1_800.0


@dataclass(frozen=True)
class Usage:
    """What one process used: CPU seconds, and MiB at its largest."""

    cpu_s: float
    peak_mib: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
        peak_kib = int(status.partition("VmHWM:")[2].split()[0])
        return cls((int(times[11]) + int(times[12])) / TICKS, peak_kib / 1024)


@dataclass(frozen=True)
class Figures:
    """What one reader did with all accounts."""

    records: int
    took_s: float
    usage: dict[str, Usage]

    def rows(self) -> Iterator[str]:
        yield f"  records            {self.records:>12,}"
        yield f"  seconds            {self.took_s:>12.1f}"
        yield f"  records per second {self.records / self.took_s:>12,.0f}"
        cpu_s = sum(each.cpu_s for each in self.usage.values())
        yield f"  CPU us per record  {1e6 * cpu_s / self.records:>12.1f}"
        for name, each in self.usage.items():
            cpu_us = 1e6 * each.cpu_s / self.records
            yield f"    {name:<14} {cpu_us:>8.1f} us, {each.peak_mib:>5.0f} MiB at most"


def read_with_engine(options: argparse.Namespace, machine: Machine, provider: str, database: str) -> Figures:
    """Backfill every account through the API, from the first request to the last sync that is complete."""
    broker = Redis(machine).start()
    engine = Engine(
        machine, database_url=database, broker_url=broker.url, stripe_url=provider, log_level="WARNING"
    )
    engine.workers += [engine.add_worker(f"worker-{number}") for number in range(2, options.workers + 1)]
    engine.start()
    processes = {"redis": broker.process, "web": engine.web} | {
        f"worker {number}": worker for number, worker in enumerate(engine.workers, 1)
    }
    began = time.monotonic()
    create_syncs(engine, keys(options))
    machine.wait_until(lambda: is_complete(engine), "the backfills are complete", GIVE_UP_AFTER_S)
    took_s = time.monotonic() - began
    used = {name: Usage.of(process.pid) for name, process in processes.items()}
    return Figures(count_records(database), took_s, used)


def create_syncs(engine: Engine, secrets: Sequence[str]) -> None:
    stream_id = engine.http.post("/streams", json={"slug": "main"}).raise_for_status().json()["id"]
    for number, secret in enumerate(secrets):
        sync = {
            "provider": "stripe",
            "stream_id": stream_id,
            "name": f"Account {number}",
            "collection_ids": ["stripe:customer"],
            "rate_limit": UNLIMITED,
            "credential": {"properties": {"kind": "stripe_key", "secret": secret}},
        }
        engine.http.post("/syncs", json=sync).raise_for_status()


def is_complete(engine: Engine) -> bool:
    time.sleep(0.5)  # asking more often would be part of what is measured
    syncs = engine.http.get("/syncs").raise_for_status().json()["data"]
    return all(sync["initial_backfill_completed_at"] for sync in syncs)


def read_with_dlt(options: argparse.Namespace, home: Path, provider: str, database: str) -> Figures:
    """The same with dlt, in a process of its own."""
    command = [options.dlt, READER, "--url", provider, "--database", database]
    command += ["--directory", home / "dlt", "--keys", *keys(options)]
    env = os.environ | {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    said = json.loads(output.splitlines()[-1])
    return Figures(said["records"], said["took_s"], {"dlt": Usage(said["cpu_s"], said["peak_mib"])})


def keys(options: argparse.Namespace) -> list[str]:
    """One for each account; the provider takes any."""
    return [f"sk_test_benchmark_{number}" for number in range(options.syncs)]


def count_records(database: str) -> int:
    engine = create_engine(database)
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(Record)).scalar_one()
    engine.dispose()
    return int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="in all accounts together")
    parser.add_argument("--syncs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the engine")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--dlt", metavar="PYTHON", help="a Python with requirements/benchmarks.txt")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    if options.dlt and options.database != "sqlite":
        parser.error("--dlt loads into SQLite here: leave out --database")
    results: dict[str, Figures] = {}
    with (
        tempfile.TemporaryDirectory(prefix="gangway-backfill-") as directory,
        empty_database(options.database, Path(directory)) as for_engine,
        empty_database(options.database, Path(directory)) as for_dlt,
        Machine(Path(directory)) as machine,
    ):
        provider = BulkStripe(machine, records=options.records // options.syncs).start().url
        results["engine"] = read_with_engine(options, machine, provider, for_engine)
        if options.dlt:
            results["dlt"] = read_with_dlt(options, Path(directory), provider, for_dlt)
    if options.json:
        print(json.dumps({name: asdict(each) for name, each in results.items()}))
        return
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.database}, {options.syncs} syncs"
    )
    for name, figures in results.items():
        print("\n".join([name, *figures.rows()]))


if __name__ == "__main__":
    main()
