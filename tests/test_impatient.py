"""A Redis that hangs costs one wait; when it is back, so are we."""

import os
import signal
import time

import pytest
import redis as redis_client

from reco.impatient import REST_S, ImpatientRedis


def test_a_store_that_hangs_is_waited_for_once_and_asked_again_later(redis, redis_url):
    client = ImpatientRedis.of(redis_url, 0.2)
    client.set("a", b"1")
    pid = redis.info("server")["process_id"]

    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(redis_client.TimeoutError):
            client.get("a")
        with pytest.raises(redis_client.TimeoutError, match="a moment ago"):
            client.mget(["a", "b"])
    finally:
        os.kill(pid, signal.SIGCONT)
    time.sleep(REST_S)

    assert client.get("a") == b"1"
    client.close()


def test_a_connection_that_was_closed_meanwhile_is_opened_anew(redis, redis_url):
    client = ImpatientRedis.of(redis_url, 3)
    client.set("a", b"1")

    redis.client_kill_filter(_type="normal", skipme=True)

    assert client.get("a") == b"1"
    client.close()
