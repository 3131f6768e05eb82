"""Everything on one machine. The one place that knows both the worker and the engine: it starts them."""

from worker.stack.board import show
from worker.stack.errors import StackError
from worker.stack.ports import free_port
from worker.stack.run import Stack, first_of, run_engine, run_stack, running, stop_requested
from worker.stack.scope import Scope

__all__ = [
    "Scope",
    "Stack",
    "StackError",
    "first_of",
    "free_port",
    "run_engine",
    "run_stack",
    "running",
    "show",
    "stop_requested",
]
