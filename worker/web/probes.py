"""`/healthz`: the process answers. `/readyz`: it can do its job, and whether the broker can be reached."""

import asyncio
from typing import Literal

from celery import Celery
from fastapi import APIRouter, Response
from pydantic import BaseModel

from worker.web.readiness import Probe, Storage, Verdict, messages_waiting


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Ready means that webhooks can be stored; without a broker they wait in the database."""

    status: Literal["ok", "unavailable"]
    database: Verdict
    broker: Literal["ok", "unreachable"]
    messages_waiting: dict[str, int] | None = None


def probes(storage: Storage, celery: Celery) -> APIRouter:
    router = APIRouter(tags=["health"])
    database: Probe[Verdict] = Probe(storage.check, late="too slow")
    broker = Probe(lambda: messages_waiting(celery), late=None)

    @router.get("/healthz")
    async def healthz() -> Liveness:
        """The process runs."""
        return Liveness()

    @router.get("/readyz", responses={503: {"model": Readiness}})
    async def readyz(response: Response) -> Readiness:
        """The process can accept webhooks."""
        stored, waiting = await asyncio.gather(database.answer(), broker.answer())
        if stored != "ok":
            response.status_code = 503
        return Readiness(
            status="ok" if stored == "ok" else "unavailable",
            database=stored,
            broker="ok" if waiting is not None else "unreachable",
            messages_waiting=waiting,
        )

    return router
