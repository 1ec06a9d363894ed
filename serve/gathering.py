"""Calls that come one by one and are made together: whoever waits meanwhile joins the next group.

Ray's own `serve.batch` closes a group every few milliseconds, whether one can start or not, so that
under load many small groups stand in line; here a group closes when it starts, and those under way
share the calls evenly. It starts once nobody else comes: clients that were answered together ask
again one by one, and who misses the group waits for the whole of the next.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Waiting(Generic[Ask, Answer]):
    ask: Ask
    answer: asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """What broke the work of some asks, in the place of their answers."""

    error: Exception


class Gathering(Generic[Ask, Answer]):
    """Groups of at most `most` calls, `at_once` of them under way; lives in one event loop.

    work    makes the calls of a group: an answer for each, in order
    least   a group this small is not shared out
    pause_s  how long nobody has come before a group that could begin does
    wait_s  how long it waits at most, since the first of them
    size    what a call counts for against `most`; a larger one goes alone
    """

    def __init__(
        self,
        work: Callable[[list[Ask]], Awaitable[Sequence[Answer | Unforeseen]]],
        *,
        most: int,
        pause_s: float,
        wait_s: float,
        at_once: int,
        least: int = 16,
        size: Callable[[Ask], int] = lambda _: 1,
    ) -> None:
        self._work = work
        self._most = most
        self._pause_s = pause_s
        self._wait_s = wait_s
        self._at_once = at_once
        self._least = least
        self._size = size
        self._waiting: deque[_Waiting[Ask, Answer]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._latest = 0.0  # of the event loop's clock: then it begins, whoever comes
        self._groups: dict[asyncio.Task[None], int] = {}

    async def ask(self, ask: Ask) -> Answer:
        """The answer to one call. Raises what the work of its group raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Ask, Answer](ask, loop.create_future())
        self._waiting.append(waiting)
        self._soon()
        return await waiting.answer

    def _soon(self) -> None:
        """Let the next groups begin when nobody else comes, as far as there is a place."""
        if not self._waiting or len(self._groups) >= self._at_once:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is None:
            self._latest = now + self._wait_s
        else:
            self._timer.cancel()
        full = len(self._waiting) >= self._most
        self._timer = loop.call_at(
            now if full else min(now + self._pause_s, self._latest), self._start
        )

    def _start(self) -> None:
        """Begin the next groups, as far as there are calls and places for them."""
        self._timer = None
        while len(self._groups) < self._at_once and (group := self._next()):
            # In a context of its own: when a client hangs up, Ray Serve ends whatever was called in
            # the context of its request, and a group belongs to none of its callers alone.
            task = asyncio.create_task(self._run(group), context=Context())
            self._groups[task] = sum(self._size(one.ask) for one in group)
            task.add_done_callback(self._ended)

    def _next(self) -> list[_Waiting[Ask, Answer]]:
        """Those who waited longest, as many as are fair."""
        # Nobody listens any more to one that was cancelled.
        self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
        sizes = [self._size(one.ask) for one in self._waiting]
        share = -(-(sum(sizes) + sum(self._groups.values())) // self._at_once)
        limit = min(self._most, max(share, self._least))
        fit = sum(size <= limit for size in accumulate(sizes))
        return [self._waiting.popleft() for _ in range(max(fit, min(len(sizes), 1)))]

    async def _run(self, group: list[_Waiting[Ask, Answer]]) -> None:
        try:
            answers = await self._work([one.ask for one in group])
            for one, answer in zip(group, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, Unforeseen):
                    one.answer.set_exception(answer.error)
                else:
                    one.answer.set_result(answer)
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            for one in group:
                if not one.answer.done():
                    one.answer.set_exception(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._groups[task]
        self._soon()  # whoever was just answered may ask again, and then joins this group


async def by_group(
    asks: Sequence[Ask],
    groups: Sequence[Sequence[int]],
    work: Callable[[list[Ask]], Awaitable[Sequence[Answer]]],
) -> Sequence[Answer | Unforeseen]:
    """Do the work of each group of places side by side; gives the answers in the order of asks.

    What breaks in one group is no answer of another.
    """

    async def done(places: Sequence[int]) -> Sequence[Answer | Unforeseen]:
        try:
            return await work([asks[i] for i in places])
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            return [Unforeseen(error)] * len(places)

    found = await asyncio.gather(*(done(places) for places in groups))
    answers = dict(zip(chain(*groups), chain(*found), strict=True))
    return [answers[i] for i in range(len(asks))]
