"""When to start a dead process again, and when to speak about it: pure decisions."""

from typing import Final

FIRST_DELAY_S: Final = 0.1
MAX_DELAY_S: Final = 5.0
STEADY_AFTER_S: Final = 10.0
"""A process that lived this long was fine; its death starts the count anew."""
LOOP_AFTER: Final = 3
QUIET_FOR: Final = 12


def failures_in_a_row(before: int, *, lived_s: float) -> int:
    return 1 if lived_s >= STEADY_AFTER_S else before + 1


def restart_delay_s(failures: int) -> float:
    """At once after the first death, then doubling up to five seconds, for ever."""
    return min(FIRST_DELAY_S * 2.0 ** min(failures - 1, 16), MAX_DELAY_S)


def is_crash_loop(failures: int) -> bool:
    return failures >= LOOP_AFTER


def is_worth_a_line(failures: int) -> bool:
    """Each death until the loop is plain, then about one line a minute."""
    return failures <= LOOP_AFTER or failures % QUIET_FOR == 0
