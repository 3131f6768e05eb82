"""Reads upstream collections page by page, in short slices that any worker can continue."""
