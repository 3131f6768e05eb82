"""`/healthz`: the process lives. `/readyz`: it can do its work."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import text

from engine.api.caller import Services
from engine.api.failures import answer

router = APIRouter(tags=["probes"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(request: Request) -> JSONResponse:
    """Whether the database answers. The broker is not needed to take requests."""
    services: Services = request.app.state.services
    try:
        with services.database.read() as session:
            session.connection().execute(text("SELECT 1"))
    except SQLAlchemyError as exc:
        return answer(503, f"The database does not answer: {type(exc).__name__}")
    return JSONResponse({"status": "ok"})
