"""What may be asked about syncs."""

from celery import Task

from models import Step
from tasks.edge import ConnectionsFailedError, perform, step
from worker.app import FOLLOW, app
from worker.steps.follow import follow as follow_feed


@app.task(name=Step.CREATE, bind=True, max_retries=None, throws=(ConnectionsFailedError,))
def create(self: "Task[..., str]") -> str:
    """Create the syncs that are due, or adopt those that an interrupted try created."""
    return perform(self, step(Step.CREATE))


@app.task(name=Step.POLL, bind=True, max_retries=None, throws=(ConnectionsFailedError,))
def poll(self: "Task[..., str]") -> str:
    """Look at the syncs that are due."""
    return perform(self, step(Step.POLL))


@app.task(name=Step.UPDATE, bind=True, max_retries=None, throws=(ConnectionsFailedError,))
def update(self: "Task[..., str]") -> str:
    """Bring the syncs that are due to what is wanted of them by now."""
    return perform(self, step(Step.UPDATE))


@app.task(name=Step.REMOVE, bind=True, max_retries=None, throws=(ConnectionsFailedError,))
def remove(self: "Task[..., str]") -> str:
    """Delete the syncs and credentials that are due at the Management API."""
    return perform(self, step(Step.REMOVE))


@app.task(name=FOLLOW, bind=True, max_retries=None, send_events=False)
def follow(self: "Task[..., str]") -> str:
    """Record what the API's feed of changed syncs tells. Too frequent to be shown in Flower."""
    return perform(self, follow_feed)
