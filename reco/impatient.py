"""A Redis client for those who have something better to do than wait: the graph that makes mails.

A call that gets no answer in time fails, and so do, at once, all calls of the next moment; then one
is tried again. So a store that hangs costs a chunk one wait, not one for each question.
"""

import time
from typing import Any, Final, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

REST_S: Final = 1.0


class ImpatientRedis(redis.Redis):
    """Gives up after its timeout, and then for REST_S; threads may share it."""

    _rests_until = 0.0

    @classmethod
    def of(cls, url: str, timeout_s: float) -> "ImpatientRedis":
        """Not connected yet. Replies are bytes."""
        # A connection that the server closed meanwhile is opened anew; who is slow is not asked.
        once_more = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        client = cls.from_url(
            url,
            decode_responses=False,
            legacy_responses=False,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=once_more,
        )
        return cast(ImpatientRedis, client)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See redis.Redis. Raises TimeoutError of redis without asking while it rests."""
        if time.monotonic() < self._rests_until:
            raise redis.TimeoutError("It did not answer a moment ago.")
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.TimeoutError:
            self._rests_until = time.monotonic() + REST_S
            raise
