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
from foundation.broker import redis_client

SLACK: Final = 1.001
"""Two clocks need not be equally fast; the provider's may be the faster one by a thousandth."""
ABANDONED_AFTER_S: Final = 20.0
"""Longer than any request takes: by then one whose worker died is over."""
SENT_WITHIN_S: Final = 7.0
"""Long enough to connect, encrypt and send: by then a request has reached the provider, or never will."""
LATE_S: Final = 1.0
"""Who has not come back by then has lost its turn."""
SHORTEST_WAIT_S: Final = 0.001
LONG_AGO_S: Final = 1e9

log = structlog.get_logger(__name__)

# Three keys for each sync. `way` has the requests under way, by reading and fence, with the moment by which
# each is over at the latest, or has arrived if its reading has been claimed anew since; `past` the moments at
# which others were over, oldest first; `waiting` the moments at which readings were told to come back. Each
# was told another one, so that not all of them come for the same place, and who comes in vain stays in line.
TAKE: Final = """
local way, past, waiting, reading, claim = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[1] .. ':' .. ARGV[2]
local allowed, interval = tonumber(ARGV[3]), tonumber(ARGV[4])
local longest, sending = tonumber(ARGV[5]), tonumber(ARGV[6])
local earlier, late = tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function at(seconds) return string.format('%.6f', seconds) end

if redis.call('HDEL', way, claim) == 1 then redis.call('RPUSH', past, at(now)) end
if earlier < interval then redis.call('HSET', way, 'earlier', at(now - earlier)) end
local held = redis.call('HGETALL', way)
for n = 2, #held, 2 do
    local who, over_at = held[n - 1], tonumber(held[n])
    local is_lost = string.sub(who, 1, #reading) == reading
    if is_lost then over_at = over_at - longest + sending end
    local is_in_interval = over_at > now - interval and over_at < now + longest + 1
    if is_lost or not is_in_interval then redis.call('HDEL', way, who) end
    if is_lost and is_in_interval then redis.call('HSET', way, 'lost:' .. who, at(over_at)) end
end
local function drop(index, pop, is_foreign)
    local moment = tonumber(redis.call('LINDEX', past, index))
    while moment and is_foreign(moment) do
        redis.call(pop, past)
        moment = tonumber(redis.call('LINDEX', past, index))
    end
end
drop(0, 'LPOP', function(moment) return moment <= now - interval end)
drop(-1, 'RPOP', function(moment) return moment > now + 1 end)  -- a clock was put back
local told = redis.call('ZSCORE', waiting, reading)
redis.call('ZREM', waiting, reading)
redis.call('ZREMRANGEBYSCORE', waiting, '-inf', at(now - late))

local taken, wait = redis.call('HLEN', way) + redis.call('LLEN', past), false
if taken < allowed then
    redis.call('HSET', way, claim, at(now + longest))
else
    local ahead = redis.call('ZCOUNT', waiting, '-inf', told and '(' .. told or '+inf')
    local over_at = redis.call('LINDEX', past, taken - allowed + ahead % allowed) or now
    wait = over_at - now + interval + math.floor(ahead / allowed) * interval
    redis.call('ZADD', waiting, at(now + wait), reading)
end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, math.ceil((longest + interval) * 1000)) end
return wait and at(wait)
"""
LEAVE: Final = """
local way, past, claim = KEYS[1], KEYS[2], ARGV[1] .. ':' .. ARGV[2]
local time = redis.call('TIME')
local left = redis.call('PTTL', way)
if redis.call('HDEL', way, claim, 'lost:' .. claim) == 1 then
    redis.call('RPUSH', past, string.format('%.6f', time[1] + time[2] / 1000000))
    redis.call('PEXPIRE', past, left)
end
"""


class Pace:
    """Grants requests. What is not granted says how long to wait before asking again."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(TAKE)
        self._leave = redis.register_script(LEAVE)

    @classmethod
    def on_redis(cls, url: str) -> "Pace":
        return cls(redis_client(url, read_timeout_s=2.0))

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
        limits = (rate_limit.allowed_requests, interval_s, ABANDONED_AFTER_S, SENT_WITHIN_S)
        arguments = (str(reading_id), fence, *limits, max(earlier_s, 0.0), LATE_S)
        wait_s = self._take(keys=_keys(sync_id), args=arguments)
        return 0.0 if wait_s is None else max(float(wait_s), SHORTEST_WAIT_S)

    def answered(self, sync_id: UUID, reading_id: UUID, *, fence: int = 0) -> None:
        """The request is over, or given up. Unheard, that is known when the claim next takes a place."""
        try:
            self._leave(keys=_keys(sync_id)[:2], args=[str(reading_id), fence])
        except RedisError as exc:
            log.warning("pace.unavailable", error=type(exc).__name__)


def _keys(sync_id: UUID) -> list[str]:
    """In braces what a cluster of Redis has to keep on one machine."""
    return [f"engine:pace:{{{sync_id}}}:{name}" for name in ("way", "past", "waiting")]
