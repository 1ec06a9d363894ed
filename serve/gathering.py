"""Calls that come one by one and are made together: whoever waits meanwhile joins the next group.

Ray's own `serve.batch` closes a group every few milliseconds, whether one can start or not, so that
under load many small groups stand in line. Here the next one starts when the one before has ended
and nobody else comes, or all came that can be waited for: clients that were answered together ask
again one by one, and a large group costs little more than a small one. A group that takes unusually
long holds nobody up.
"""

import asyncio
import math
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
    size: int
    came_at: float


@dataclass(frozen=True, slots=True)
class Unforeseen:
    """What broke the work of some asks, in the place of their answers."""

    error: Exception


class Gathering(Generic[Ask, Answer]):
    """Groups of at most `most` calls; lives in one event loop.

    work      makes the calls of a group: an answer for each, in order
    pause_s   how long nobody has come before the next group starts
    wait_s    how long its first call waits at most, once it could start
    behind_s  how long after the last group the next one starts while that is still under way;
              what fills a group waits for none
    at_once   groups under way at most
    size      what a call counts for against `most`; a larger one goes alone
    """

    def __init__(
        self,
        work: Callable[[list[Ask]], Awaitable[Sequence[Answer | Unforeseen]]],
        *,
        most: int,
        pause_s: float,
        wait_s: float,
        behind_s: float,
        at_once: int,
        size: Callable[[Ask], int] = lambda _: 1,
    ) -> None:
        self._work = work
        self._most = most
        self._pause_s = pause_s
        self._wait_s = wait_s
        self._behind_s = behind_s
        self._at_once = at_once
        self._size = size
        self._waiting: deque[_Waiting[Ask, Answer]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._began = self._ended_at = -math.inf  # of the event loop's clock: the latest of them
        self._expected = math.inf  # calls: those who waited and who were answered at that moment
        self._groups: dict[asyncio.Task[None], int] = {}

    async def ask(self, ask: Ask) -> Answer:
        """The answer to one call. Raises what the work of its group raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Ask, Answer](ask, loop.create_future(), self._size(ask), loop.time())
        self._waiting.append(waiting)
        self._soon()
        return await waiting.answer

    def _soon(self) -> None:
        """Start the next group when nobody else comes, as far as there is a place."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting or len(self._groups) >= self._at_once:
            return
        loop = asyncio.get_running_loop()
        start_at = now = loop.time()
        sizes = [one.size for one in self._waiting if not one.answer.cancelled()]
        everybody = not self._groups and len(sizes) >= self._expected
        if sum(sizes) < self._most and not everybody:
            free_at = self._began + self._behind_s if self._groups else self._ended_at
            since = max(free_at, self._ended_at, self._waiting[0].came_at)
            start_at = max(free_at, min(now + self._pause_s, since + self._wait_s))
        self._timer = loop.call_at(start_at, self._start)

    def _start(self) -> None:
        """Start the next group; whoever does not fit into it waits for the one after."""
        self._timer = None
        group = self._next()
        if not group:
            return
        # In a context of its own: when a client hangs up, Ray Serve ends whatever was called in the
        # context of its request, and a group belongs to none of its callers alone.
        task = asyncio.create_task(self._run(group), context=Context())
        self._groups[task] = len(group)
        task.add_done_callback(self._ended)
        self._began = asyncio.get_running_loop().time()
        self._soon()

    def _next(self) -> list[_Waiting[Ask, Answer]]:
        """Those who waited longest, as many as fit."""
        # Nobody listens any more to one that was cancelled.
        self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
        sizes = accumulate(one.size for one in self._waiting)
        fit = sum(size <= self._most for size in sizes)
        return [self._waiting.popleft() for _ in range(fit or min(len(self._waiting), 1))]

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
        except asyncio.CancelledError:
            for one in group:
                one.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked
            for one in group:
                if not one.answer.done():
                    one.answer.set_exception(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._expected = self._groups.pop(task) + len(self._waiting)
        self._ended_at = asyncio.get_running_loop().time()
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
