"""What may be asked about credentials."""

from celery import Task

from models import Step
from tasks.edge import perform
from worker.app import app


@app.task(name=Step.CAPTURE, bind=True, max_retries=None)
def capture(self: "Task[..., None]", connection_ids: list[str]) -> None:
    """Bring the credentials of these connections to the Management API."""
    perform(self, Step.CAPTURE, connection_ids)
