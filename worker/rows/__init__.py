"""The rows as a work queue: who may take which, who holds what, what came of it, what is due."""
