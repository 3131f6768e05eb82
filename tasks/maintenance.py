"""What is asked of the service itself, by the clock."""

from worker.app import SWEEP, app
from worker.runtime import runtime
from worker.sweep import sweep as offer_due_rows


@app.task(name=SWEEP)
def sweep() -> None:
    """Offer every due row to the queue. Any number of these may run at once."""
    offer_due_rows(runtime(), app)
