"""Keeps all workers together within a sync's rate limit, so that it holds where it is counted: upstream.

A request takes a place before it is sent, and the place is free again one interval after the answer came.
The provider sees the request at some moment in between. So whoever takes the place next is seen at least an
interval later, however long either was under way, and no window of that length ever holds more requests
than there are places. Only Redis looks at a clock, its own.
"""

from typing import Final
from uuid import UUID

import structlog
from redis import Redis
from redis.exceptions import RedisError

from engine.providers.catalogue import RateLimit
from foundation.database import new_id

SLACK: Final = 1.001
"""Two clocks need not be equally fast; the provider's may be the faster one by a thousandth."""
ABANDONED_AFTER_S: Final = 20.0
"""Longer than any request takes: by then one whose worker died is over."""
LATE_S: Final = 1.0
"""Who has not come back by then has lost its turn."""
SHORTEST_WAIT_S: Final = 0.001
LONG_AGO_S: Final = 1e9

log = structlog.get_logger(__name__)

# `places` holds the requests under way, by the claim of their reading, and those of the last interval, each
# with the moment it was or will be over. `waiting` holds the moments at which readings were told to come
# back: each was told another one, so that not all of them come for the same place, and who comes in vain
# stays in line.
TAKE: Final = """
local places, waiting, reading, claim, unique = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local allowed, interval, longest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local earlier, late = tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function at(seconds) return string.format('%.6f', seconds) end
local function keep(key) redis.call('PEXPIRE', key, math.ceil((longest + interval) * 1000)) end

redis.call('ZREMRANGEBYSCORE', places, '-inf', at(now - interval))
redis.call('ZREMRANGEBYSCORE', places, '(' .. at(now + longest), '+inf')
if redis.call('ZREM', places, claim) == 1 then
    redis.call('ZADD', places, at(now), unique)
end
if earlier < interval then
    redis.call('ZADD', places, at(now - earlier), 'earlier')
end
local told = redis.call('ZSCORE', waiting, reading)
redis.call('ZREM', waiting, reading)
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', at(now - late))

local taken = redis.call('ZCARD', places)
if taken < allowed then
    redis.call('ZADD', places, at(now + longest), claim)
    keep(places)
    return '0'
end
local ahead = redis.call('ZCOUNT', waiting, '-inf', told and '(' .. told or '+inf')
local next = taken - allowed + ahead % allowed
local over_at = redis.call('ZRANGE', places, next, next, 'WITHSCORES')[2]
local wait = math.min(over_at - now, 0) + interval + math.floor(ahead / allowed) * interval
redis.call('ZADD', waiting, at(now + wait), reading)
keep(places)
keep(waiting)
return at(wait)
"""
ANSWERED: Final = """
local places, claim, unique = KEYS[1], ARGV[1], ARGV[2]
local time = redis.call('TIME')
if redis.call('ZREM', places, claim) == 1 then
    redis.call('ZADD', places, string.format('%.6f', time[1] + time[2] / 1000000), unique)
end
"""


class Pace:
    """Grants requests. What is not granted says how long to wait before asking again."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(TAKE)
        self._answered = redis.register_script(ANSWERED)

    @classmethod
    def on_redis(cls, url: str) -> "Pace":
        return cls(Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=1.0))

    def wait_s(
        self,
        sync_id: UUID,
        reading_id: UUID,
        rate_limit: RateLimit,
        *,
        fence: int = 0,
        earlier_s: float = LONG_AGO_S,
    ) -> float:
        """Zero, and the reading has a place for one request; or how long until one is likely to be free.

        `earlier_s` is how long ago somebody who takes no places last asked the provider on the sync's behalf.
        A claim makes one request at a time: if it has a place already, then that request is over. An earlier
        claim of the same reading, under another fence, may still have one under way.
        """
        interval_s = rate_limit.interval * SLACK
        numbers = (rate_limit.allowed_requests, interval_s, ABANDONED_AFTER_S, max(earlier_s, 0.0), LATE_S)
        who = (str(reading_id), _claim(reading_id, fence), str(new_id()))
        wait_s = float(self._take(keys=_keys(sync_id), args=[*who, *numbers]))
        return max(wait_s, SHORTEST_WAIT_S) if wait_s else 0.0

    def answered(self, sync_id: UUID, reading_id: UUID, *, fence: int = 0) -> None:
        """The request is over, or given up. Unheard, that is known when the claim next takes a place."""
        try:
            self._answered(keys=_keys(sync_id)[:1], args=[_claim(reading_id, fence), str(new_id())])
        except RedisError as exc:
            log.warning("pace.unavailable", error=type(exc).__name__)


def _claim(reading_id: UUID, fence: int) -> str:
    return f"{reading_id}:{fence}"


def _keys(sync_id: UUID) -> tuple[str, str]:
    """In braces what a cluster of Redis has to keep on one machine."""
    return f"engine:pace:{{{sync_id}}}:places", f"engine:pace:{{{sync_id}}}:waiting"
