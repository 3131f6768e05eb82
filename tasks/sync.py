"""What may be asked about syncs."""

from celery import Task

from models import Step
from tasks.edge import perform
from worker.app import app


@app.task(name=Step.CREATE, bind=True, max_retries=None)
def create(self: "Task[..., None]", connection_ids: list[str]) -> None:
    """Create the syncs of these connections, or adopt those that an interrupted try created."""
    perform(self, Step.CREATE, connection_ids)


@app.task(name=Step.POLL, bind=True, max_retries=None)
def poll(self: "Task[..., None]", connection_ids: list[str]) -> None:
    """Look at the syncs of these connections."""
    perform(self, Step.POLL, connection_ids)


@app.task(name=Step.UPDATE, bind=True, max_retries=None)
def update(self: "Task[..., None]", connection_ids: list[str]) -> None:
    """Bring the syncs of these connections to what is wanted of them by now."""
    perform(self, Step.UPDATE, connection_ids)


@app.task(name=Step.REMOVE, bind=True, max_retries=None)
def remove(self: "Task[..., None]", connection_ids: list[str]) -> None:
    """Delete the syncs and credentials of these connections at the Management API."""
    perform(self, Step.REMOVE, connection_ids)
