"""`/healthz`: the process answers. `/readyz`: it can do its job, and whether the broker can be reached."""

from typing import Literal

from celery import Celery
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from foundation.database import Database
from foundation.migrations import is_current
from models import MIGRATIONS
from worker.sweep import backlog

Verdict = Literal["ok", "unreachable", "not migrated"]


class Liveness(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Ready means that webhooks can be stored; without a broker they wait in the database."""

    status: Literal["ok", "unavailable"]
    database: Verdict
    broker: Verdict
    messages_waiting: dict[str, int] | None = None


def probes(database: Database, celery: Celery) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    def healthz() -> Liveness:
        """The process runs."""
        return Liveness()

    @router.get("/readyz", responses={503: {"model": Readiness}})
    def readyz(response: Response) -> Readiness:
        """The process can accept webhooks."""
        stored = _database(database)
        waiting = _waiting(celery)
        if stored != "ok":
            response.status_code = 503
        return Readiness(
            status="ok" if stored == "ok" else "unavailable",
            database=stored,
            broker="ok" if waiting is not None else "unreachable",
            messages_waiting=waiting,
        )

    return router


def _database(database: Database) -> Verdict:
    try:
        with database.read() as session:
            session.execute(text("SELECT 1"))
        return "ok" if is_current(database, MIGRATIONS) else "not migrated"
    except SQLAlchemyError:
        return "unreachable"


def _waiting(celery: Celery) -> dict[str, int] | None:
    try:
        return backlog(celery)
    except Exception:  # noqa: BLE001  # whatever this broker's client raises
        return None
