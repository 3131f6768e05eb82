"""The work table as a queue: what is due, who takes it in which order, and what came of it."""
