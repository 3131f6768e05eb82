"""What the demo says at its end: some records, who failed and what to do about it, and how long it took."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from worker.demo.progress import TenantStatus


def print_records(samples: Sequence[dict[str, Any]], total: int, console: Console) -> None:
    console.print(
        f"\nAn HTTP consumer read and acknowledged {total} records of the stream. The first of them:"
    )
    for record in samples:
        about = {key: record["data"].get(key) for key in ("id", "name", "email") if record["data"].get(key)}
        tenant = record["sync"]["external_id"]
        console.print(f"  {record['updated_idx']:>6}  {tenant}  {record['collection_id']}  {about}")


def print_failures(tenants: Sequence[TenantStatus], console: Console) -> None:
    for tenant in tenants:
        for connection in tenant.connections:
            if error := connection.error:
                console.print(f"\n{tenant.external_id} ({tenant.name}) {connection.state}: {error.code}")
                console.print(f"  why:        {error.message or 'not known'}")
                console.print(f"  what to do: {error.advice or 'nothing is known to help'}")


def print_verdict(
    tenants: Sequence[TenantStatus], wrong: Sequence[str], seconds: float, console: Console
) -> None:
    ready = sum(tenant.state == "ready" for tenant in tenants)
    failed = sum(tenant.state == "failed" for tenant in tenants)
    console.print(f"\n{ready} ready and {failed} failed, {seconds:.1f} s after the start.")
    for line in wrong:
        console.print(f"Not as expected: {line}")
