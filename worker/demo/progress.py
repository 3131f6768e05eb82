"""Where the demo's tenants stand, as the status API tells it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import httpx
from pydantic import BaseModel

SETTLED: Final = frozenset({"ready", "failed"})


class Problem(BaseModel):
    code: str
    message: str | None = None
    advice: str | None = None


class ConnectionStatus(BaseModel):
    provider: str
    state: str
    error: Problem | None = None


class TenantStatus(BaseModel):
    """One tenant of the status API's answer, as far as the demo shows it."""

    external_id: str
    name: str | None
    state: str
    created_at: datetime
    ready_at: datetime | None
    connections: list[ConnectionStatus]

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED

    @property
    def seconds_to_ready(self) -> float | None:
        return (self.ready_at - self.created_at).total_seconds() if self.ready_at else None


class _Page(BaseModel):
    data: list[TenantStatus]


async def tenant_statuses(client: httpx.AsyncClient, url: str, token: str) -> list[TenantStatus]:
    """All tenants of the demo, by their id."""
    answer = await client.get(
        f"{url}/v1/tenants", params={"limit": 100}, headers={"authorization": f"Bearer {token}"}
    )
    answer.raise_for_status()
    return sorted(_Page.model_validate_json(answer.content).data, key=lambda tenant: tenant.external_id)


def shortcomings(
    tenants: Sequence[TenantStatus], records: Mapping[str, int], *, expected: int, doomed: str
) -> list[str]:
    """What is not as it should be: everyone ready, with records, but the one with the wrong key."""
    wrong = [f"{len(tenants)} tenants are known, expected {expected}"] if len(tenants) != expected else []
    for tenant in tenants:
        should_be = "failed" if tenant.external_id == doomed else "ready"
        if tenant.state != should_be:
            wrong.append(f"{tenant.external_id} is {tenant.state}, expected {should_be}")
        elif tenant.state == "ready" and not records.get(tenant.external_id):
            wrong.append(f"{tenant.external_id} is ready, but no record of it could be read")
    return wrong
