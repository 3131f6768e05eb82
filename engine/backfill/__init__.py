"""Reads upstream collections page by page, in short slices that any worker can continue.

Change detection after the first backfill is not here yet: a finished reading has no `due_at`. It will give
finished readings a next `due_at` from `sync_frequency`; claiming, pacing and storing stay as they are.
"""
