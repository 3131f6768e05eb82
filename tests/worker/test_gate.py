"""The gate: one pause for everybody, as long as the longest that was asked for, and open without Redis."""

from datetime import timedelta

import fakeredis
import pytest
import redis
from worker.gate import KEY, RedisGate

from worker.errors import PausedError


@pytest.fixture
def gate(redis_server: fakeredis.FakeRedis) -> RedisGate:
    return RedisGate(redis_server)


def test_open_gate_lets_calls_through(gate: RedisGate) -> None:
    """Nobody is held up before a 429."""
    gate.check()


def test_pause_holds_everybody(gate: RedisGate, redis_server: fakeredis.FakeRedis) -> None:
    """A pause is seen by every worker, with the time that remains."""
    gate.pause(timedelta(seconds=30))

    with pytest.raises(PausedError) as caught:
        RedisGate(redis_server).check()

    assert caught.value.retry_after_s == pytest.approx(30, abs=1)


@pytest.mark.parametrize("seconds", [0.001, 1, 29])
def test_shorter_pause_shortens_nothing(
    gate: RedisGate, redis_server: fakeredis.FakeRedis, seconds: float
) -> None:
    """A call that was under way and is told to wait less does not open the gate early."""
    gate.pause(timedelta(seconds=30))

    gate.pause(timedelta(seconds=seconds))

    assert redis_server.pttl(KEY) > 29_000


def test_longer_pause_prolongs(gate: RedisGate, redis_server: fakeredis.FakeRedis) -> None:
    """Who is told to wait longer makes everybody wait longer."""
    gate.pause(timedelta(seconds=1))

    gate.pause(timedelta(seconds=30))

    assert redis_server.pttl(KEY) > 29_000


def test_pause_ends_by_itself(gate: RedisGate, redis_server: fakeredis.FakeRedis) -> None:
    """The pause is a key that expires: no worker has to live to lift it."""
    gate.pause(timedelta(0))

    assert 0 < redis_server.pttl(KEY) <= 1 or not redis_server.exists(KEY)


class BrokenRedis:
    def pttl(self, _key: str) -> int:
        raise redis.ConnectionError

    set = pttl


def test_without_redis_the_gate_is_open() -> None:
    """A Redis that is down stops no call: the API still says 429 itself."""
    gate = RedisGate(BrokenRedis())  # type: ignore[arg-type]

    gate.pause(timedelta(seconds=30))
    gate.check()
