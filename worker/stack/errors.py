"""Why a stack cannot start here, in words for the person who started it."""


class StackError(Exception):
    """Something about this machine or its configuration is in the way; says what to do about it."""
