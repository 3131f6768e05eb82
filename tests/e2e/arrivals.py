"""What a provider sees of a rate limit: when requests arrive."""

from collections import deque
from collections.abc import Iterable


def most_in_a_window(moments: Iterable[float], interval_s: float) -> int:
    """How many at most arrive within any interval, one of its ends not counted."""
    within, most = deque[float](), 0
    for moment in sorted(moments):
        within.append(moment)
        while moment - within[0] >= interval_s:
            within.popleft()
        most = max(most, len(within))
    return most
