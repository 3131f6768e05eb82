"""How many calls of the Management API all workers together may make now.

Three things are shared through Redis: a token bucket, the pause that a 429 asks for, and a breaker that
opens when the API fails for everyone and lets single calls through until one succeeds. Without Redis nothing
is held back: the API still says 429 by itself.
"""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol, cast

import redis
import structlog

from worker.retry import parse_retry_after

log = structlog.get_logger()

PREFIX: Final = "gangway:api:"
OPEN_AFTER_FAILURES: Final = 10
OPEN_AFTER_TENANTS: Final = 3
"""Failures of fewer tenants may be these tenants' own trouble."""
OPEN_AFTER_S: Final = 5.0
"""So long must nothing have succeeded."""
PROBE_S: Final = 2.0
"""The first wait between two probes; it doubles up to `PROBE_MAX_S`."""
PROBE_MAX_S: Final = 15.0
RAMP_FROM: Final = 4
RAMP_S: Final = 1.0
"""After the breaker closed, the calls that may begin at once double every so many seconds."""
RAMP_TO: Final = 512
LONGEST_ASKED_S: Final = 60.0
"""A reset that lies further ahead is not believed: the API says 429 by itself if it is meant."""
KEEP_S: Final = 24 * 3600


class Breaker(StrEnum):
    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many calls may be made now; if none, how long to wait."""

    calls: int
    wait_s: float = 0.0
    is_bounded: bool = False
    """Whether more calls than these must not be made: there is a rate, or the API has had trouble."""


@dataclass(frozen=True, slots=True)
class LimitsState:
    """What an operator wants to know about the limits."""

    breaker: Breaker
    paused_for_s: float
    tokens: float | None
    """What is left in the bucket; None without a rate."""


class Limits(Protocol):
    """What the steps need of the limits."""

    def reserve(self, calls: int) -> Allowance:
        """Take up to this many calls out of the bucket."""

    def give_back(self, calls: int) -> None:
        """Return what was reserved and not used; negative if more calls were made."""

    def pause(self, wait: timedelta) -> None:
        """Let nobody call for so long. The longest pause that was asked for holds."""

    def report(self, *, successes: int, failed_tenants: Collection[str]) -> bool:
        """Tell how calls went; true if this closed the breaker: the API works again."""


class RedisLimits:
    """The limits in Redis, by Redis's clock, each decision in one script."""

    def __init__(self, client: "redis.Redis", *, rate: float | None = None, burst: int = 0) -> None:
        self._redis = client
        self._rate = rate or 0.0
        self._burst = burst or max(math.ceil(self._rate), 1)
        self._reserve = client.register_script(_RESERVE)
        self._report = client.register_script(_REPORT)
        self._complained_at = -math.inf

    def reserve(self, calls: int) -> Allowance:
        arguments = (calls, self._rate, self._burst, RAMP_FROM, RAMP_S, RAMP_TO, PROBE_MAX_S)
        try:
            allowed, wait_ms, bounded = cast("tuple[int, int, int]", self._reserve(_KEYS, arguments))
        except redis.RedisError as exc:
            self._complain(exc)
            return Allowance(calls)
        return Allowance(int(allowed), int(wait_ms) / 1000, bool(bounded))

    def give_back(self, calls: int) -> None:
        if not self._rate or not calls:
            return
        try:
            self._redis.hincrbyfloat(_BUCKET, "tokens", calls)
        except redis.RedisError as exc:
            self._complain(exc)

    def pause(self, wait: timedelta) -> None:
        milliseconds = max(int(wait.total_seconds() * 1000), 1)
        try:
            if self._redis.pttl(_PAUSED) < milliseconds:
                self._redis.set(_PAUSED, "1", px=milliseconds)
        except redis.RedisError as exc:
            self._complain(exc)

    def report(self, *, successes: int, failed_tenants: Collection[str]) -> bool:
        if not successes and not failed_tenants:
            return False
        arguments: tuple[str | int | float, ...] = (
            successes,
            len(failed_tenants),
            OPEN_AFTER_FAILURES,
            OPEN_AFTER_TENANTS,
            OPEN_AFTER_S,
            PROBE_S,
            KEEP_S,
            *sorted(set(failed_tenants))[:OPEN_AFTER_FAILURES],
        )
        try:
            return bool(self._report(_KEYS, arguments))
        except redis.RedisError as exc:
            self._complain(exc)
            return False

    def state(self) -> LimitsState:
        """Read everything at once; raises `redis.RedisError` when Redis cannot be reached."""
        asked = self._redis.pipeline(transaction=False)
        asked.pttl(_PAUSED)
        asked.hgetall(_BUCKET)
        asked.hexists(_BREAKER, "open_since")
        asked.time()
        paused_ms, bucket, is_open, (seconds, microseconds) = asked.execute()
        breaker = Breaker.OPEN if is_open else Breaker.CLOSED
        return LimitsState(
            breaker, max(paused_ms, 0) / 1000, self._tokens(bucket, seconds + microseconds / 1e6)
        )

    def _tokens(self, bucket: Mapping[bytes, bytes], now: float) -> float | None:
        """What is in the bucket, with what has run into it since it was last used."""
        if not self._rate:
            return None
        if b"tokens" not in bucket or b"at" not in bucket:
            return float(self._burst)
        return min(self._burst, float(bucket[b"tokens"]) + max(now - float(bucket[b"at"]), 0) * self._rate)

    def _complain(self, exc: redis.RedisError) -> None:
        """Say so once in a while: an outage of Redis is told by others too."""
        if time.monotonic() - self._complained_at > 10:
            self._complained_at = time.monotonic()
            log.warning("limits.unreachable", reason=type(exc).__name__)


def pause_asked_for(headers: Mapping[str, str]) -> timedelta | None:
    """How long an answer's headers ask to wait because no request is left, if they do.

    `RateLimit-Remaining` and `RateLimit-Reset` in seconds, or the same with `X-`, whose reset may also be a
    moment in seconds since 1970.
    """
    for prefix in ("ratelimit", "x-ratelimit"):
        if headers.get(f"{prefix}-remaining", "").strip() != "0":
            continue
        seconds = parse_retry_after(headers.get(f"{prefix}-reset"))
        if seconds is None:
            continue
        if seconds > time.time() / 2:
            seconds -= time.time()
        return timedelta(seconds=min(max(seconds, 0.1), LONGEST_ASKED_S))
    return None


_PAUSED: Final = PREFIX + "paused"
_BUCKET: Final = PREFIX + "bucket"
_BREAKER: Final = PREFIX + "breaker"
_TENANTS: Final = PREFIX + "failed-tenants"
_KEYS: Final = (_PAUSED, _BUCKET, _BREAKER, _TENANTS)

_NOW: Final = "local t = redis.call('TIME') local now = t[1] + t[2] / 1e6 "

_RESERVE: Final = (
    _NOW
    + """
local calls, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local ramp_from, ramp_s, ramp_to = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local probe_max = tonumber(ARGV[7])
local paused = redis.call('PTTL', KEYS[1])
if paused > 0 then return {0, paused, 1} end
local breaker = redis.call('HMGET', KEYS[3], 'open_since', 'probe_at', 'probe_s', 'closed_at')
if breaker[1] then
  local probe_at, probe_s = tonumber(breaker[2]), tonumber(breaker[3])
  if now < probe_at then return {0, math.ceil((probe_at - now) * 1000), 1} end
  redis.call('HSET', KEYS[3], 'probe_at', now + probe_s, 'probe_s', math.min(probe_s * 2, probe_max))
  calls = 1
elseif breaker[4] then
  local ramp = ramp_from * 2 ^ ((now - tonumber(breaker[4])) / ramp_s)
  if ramp >= ramp_to then redis.call('HDEL', KEYS[3], 'closed_at') end
  calls = math.min(calls, math.floor(ramp))
end
local bounded = 0
if breaker[1] or breaker[4] or rate > 0 then bounded = 1 end
if rate <= 0 then return {calls, 0, bounded} end
local bucket = redis.call('HMGET', KEYS[2], 'tokens', 'at')
local tokens = burst
if bucket[1] and bucket[2] then
  tokens = math.min(burst, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * rate)
end
local granted = math.min(calls, math.floor(tokens))
if granted < 1 then
  redis.call('HSET', KEYS[2], 'tokens', tokens, 'at', now)
  return {0, math.ceil((1 - tokens) / rate * 1000), 1}
end
redis.call('HSET', KEYS[2], 'tokens', tokens - granted, 'at', now)
redis.call('EXPIRE', KEYS[2], 3600)
return {granted, 0, 1}
"""
)

_REPORT: Final = (
    _NOW
    + """
local successes, failures = tonumber(ARGV[1]), tonumber(ARGV[2])
local after_failures, after_tenants, after_s = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local is_open = redis.call('HEXISTS', KEYS[3], 'open_since') == 1
redis.call('EXPIRE', KEYS[3], ARGV[7])
if successes > 0 then
  redis.call('DEL', KEYS[4])
  redis.call('HSET', KEYS[3], 'succeeded_at', now, 'failures', 0)
  if not is_open then return 0 end
  redis.call('HDEL', KEYS[3], 'open_since', 'probe_at', 'probe_s', 'failing_since')
  redis.call('HSET', KEYS[3], 'closed_at', now)
  return 1
end
if is_open then return 0 end
for i = 8, #ARGV do redis.call('SADD', KEYS[4], ARGV[i]) end
redis.call('EXPIRE', KEYS[4], 3600)
local count = redis.call('HINCRBY', KEYS[3], 'failures', failures)
redis.call('HSETNX', KEYS[3], 'failing_since', now)
if count == failures then redis.call('HSET', KEYS[3], 'failing_since', now) end
local since = tonumber(redis.call('HGET', KEYS[3], 'failing_since'))
if count >= after_failures and redis.call('SCARD', KEYS[4]) >= after_tenants and now - since >= after_s then
  redis.call('HSET', KEYS[3], 'open_since', now, 'probe_at', now + tonumber(ARGV[6]), 'probe_s', ARGV[6])
end
return 0
"""
)
