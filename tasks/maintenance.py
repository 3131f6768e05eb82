"""What is asked of the service itself, by the clock. Flower does not show it: it would fill the history."""

from worker.app import PURGE, SWEEP, app
from worker.purge import purge as purge_old
from worker.runtime import runtime
from worker.sweep import sweep as wake_for_due_work


@app.task(name=SWEEP, send_events=False)
def sweep() -> None:
    """Wake workers for what is due. One sweep works at a time; any number may be asked for."""
    wake_for_due_work(runtime(), app)


@app.task(name=PURGE, send_events=False)
def purge() -> None:
    """Delete history and secrets that are older than the settings allow."""
    purge_old(runtime())
