"""The same job, done in an afternoon with dramatiq, Redis and SQLite: what Gangway is compared with.

It is meant to be fast and to lose no customer when nothing fails twice: rows before the answer, retries with
backoff, one look-up before a create is repeated. It has no leases, fairness, rate limit, breaker, sealed
secrets, history, operator commands or board.
"""
