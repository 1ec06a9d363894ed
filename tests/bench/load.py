"""A load generator that costs little: keep-alive connections, each asking anew when answered.

Runs in a process of its own; a request is bytes written, an answer is its status line and length.
"""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter
from typing import Final, cast

import numpy as np
import uvloop

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked: `body` with {i} in place of the number of the request, {user} of a user id."""

    port: int
    path: str
    api_key: str = field(repr=False)
    body: str
    users: int
    connections: int = 64
    seconds: float = 20.0
    warm_s: float = 5.0  # asked but not counted


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it: answers a second, milliseconds until one, how many by status.

    `all_answers` has those of the first seconds too, which count for nothing else.
    """

    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answers: int
    statuses: dict[int, int]
    all_answers: int


def load(plan: Plan) -> Answered:
    """Ask as planned, from another process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_load, plan).result()


def _load(plan: Plan) -> Answered:
    return uvloop.run(_ask(plan))


async def _ask(plan: Plan) -> Answered:
    numbers, began = count(), perf_counter()
    begin = began + plan.warm_s
    found: list[_Answer] = []
    loop, asked = asyncio.get_running_loop(), []
    for _ in range(plan.connections):
        connection = _Connection(_requests(plan, numbers), begin + plan.seconds, found)
        asked.append(connection.ended)
        await loop.create_connection(lambda one=connection: one, HOST, plan.port)
    await asyncio.gather(*asked)
    counted = [one for one in found if begin <= one.at < begin + plan.seconds]
    ms = np.array([one.took_s for one in counted]) * 1e3
    p50, p95, p99 = np.percentile(ms, [50, 95, 99]).round(1).tolist()
    statuses = dict(Counter(one.status for one in counted))
    per_s = round(len(ms) / plan.seconds, 1)
    return Answered(per_s, p50, p95, p99, len(ms), statuses, len(found))


def _requests(plan: Plan, numbers: Iterator[int]) -> Iterator[bytes]:
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {HOST}:{plan.port}\r\nX-API-Key: {plan.api_key}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )
    for i in numbers:
        body = plan.body.replace("{i}", str(i)).replace("{user}", f"u{i % plan.users:06d}")
        yield f"{head}{len(body)}\r\n\r\n{body}".encode()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    took_s: float
    at: float


class _Connection(asyncio.Protocol):
    """Asks, waits for the whole answer, asks again."""

    def __init__(
        self,
        requests: Iterator[bytes],
        until: float,
        found: list[_Answer],
    ) -> None:
        self._requests = requests
        self._until = until
        self._found = found
        self._buffer = b""
        self._asked_at = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._next()

    def data_received(self, data: bytes) -> None:
        """Note a whole answer, then go on."""
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = perf_counter()
        self._found.append(_Answer(int(head[9:12]), now - self._asked_at, now))
        self._buffer = b""
        if now < self._until:
            self._next()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The end, or a server that hung up."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _next(self) -> None:
        self._asked_at = perf_counter()
        self._transport.write(next(self._requests))


def _length(head: bytes) -> int:
    lower = head.lower()
    start = lower.index(b"content-length:") + len(b"content-length:")
    return int(lower[start:].split(b"\r\n", 1)[0])
