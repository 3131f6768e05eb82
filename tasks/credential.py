"""What may be asked about credentials."""

from celery import Task

from models import Step
from tasks.edge import ConnectionsFailedError, perform, step
from worker.app import app


@app.task(name=Step.CAPTURE, bind=True, max_retries=None, throws=(ConnectionsFailedError,))
def capture(self: "Task[..., str]") -> str:
    """Bring the credentials that are due to the Management API, and create their syncs."""
    return perform(self, step(Step.CAPTURE))
