"""The web process: intake, status, health. A thread sends wake-ups, so that no request waits for a broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from celery import Celery
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import Request

from foundation.database import Database
from worker.intake.accept import Intake
from worker.intake.inbox import Inbox
from worker.plans import Plans
from worker.queue.wakeups import Waker, wake_if_room
from worker.settings import Settings
from worker.web import answers
from worker.web.documents import DocumentedApp
from worker.web.probes import probes
from worker.web.readiness import Storage
from worker.web.tenants import tenants
from worker.web.webhooks import Receiver, Shortcut, webhooks

BUSY_TIMEOUT_S: Final = 5.0


def create_app(settings: Settings, celery: Celery) -> FastAPI:
    """Build the app; what it opens is closed when the server shuts down."""
    # what is answered 202 survives a loss of power, and a sender is put off before it gives up
    database = Database(settings.database_url.get_secret_value(), durable=True, busy_timeout_s=BUSY_TIMEOUT_S)
    plans = Plans.load(settings.plans_file)
    inbox = Inbox(database, Intake(settings.vault(), plans))
    storage = Storage(database)
    waker = Waker(partial(wake_if_room, celery))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        waker.start()
        yield
        inbox.close()
        waker.stop()
        database.dispose()

    app = DocumentedApp(
        title="Gangway",
        summary="Signup webhooks in, provisioned tenants out.",
        lifespan=lifespan,
    )
    receiver = Receiver(settings, plans, inbox, waker, storage)
    app.add_middleware(Shortcut, receiver=receiver)
    answers.install(app)  # after it, so around it

    @app.exception_handler(RequestValidationError)
    async def _refuse_parameters(_request: Request, exc: RequestValidationError) -> JSONResponse:
        fields: dict[str, list[str]] = {}
        for error in exc.errors():
            fields.setdefault(".".join(str(part) for part in error["loc"][1:]), []).append(error["msg"])
        return answers.answer(422, "Validation failed", fields)

    app.include_router(webhooks(receiver))
    app.include_router(tenants(settings, database))
    app.include_router(probes(storage, celery))
    return app
