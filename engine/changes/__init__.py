"""Watches what has been read once: events, lists of what changed, and now and then a whole pass."""
