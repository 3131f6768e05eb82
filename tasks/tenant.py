"""What may be asked about tenants."""

from celery import Task

from tasks.edge import perform
from worker.app import SPREAD, app
from worker.intake.spread import spread as spread_changes


@app.task(name=SPREAD, bind=True, max_retries=None)
def spread(self: "Task[..., str]") -> str:
    """Apply changes of tenants with many connections to the next of these connections."""
    return perform(self, spread_changes)
