"""Calls that are made together, in groups that close when they start."""

import asyncio
from contextvars import ContextVar

import pytest

from serve.gathering import Gathering, by_group


class Worker:
    """Doubles numbers once `go` is set; keeps the groups that it got."""

    def __init__(self):
        self.groups = []
        self.under_way = self.most_under_way = 0
        self.go = asyncio.Event()

    async def __call__(self, asks):
        self.groups.append(asks)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.go.wait()
        self.under_way -= 1
        if -1 in asks:
            raise ValueError("no")
        return [2 * ask for ask in asks]


async def asked(gathering, *numbers):
    tasks = [asyncio.create_task(gathering.ask(number)) for number in numbers]
    await asyncio.sleep(0.02)
    return tasks


async def test_who_comes_together_is_answered_together_and_each_by_its_own():
    work = Worker()
    work.go.set()
    gathering = Gathering(work, most=10, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=2)

    answers = await asyncio.gather(*(gathering.ask(i) for i in range(6)))

    assert answers == [0, 2, 4, 6, 8, 10]
    assert work.groups == [[0, 1, 2, 3, 4, 5]]


async def test_whoever_waits_while_all_places_are_taken_joins_one_next_group():
    work = Worker()
    gathering = Gathering(work, most=3, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)

    first = await asked(gathering, 1)
    later = [*await asked(gathering, 2), *await asked(gathering, 3, 4, 5)]
    work.go.set()

    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10]
    assert work.groups == [[1], [2, 3, 4], [5]]
    assert work.most_under_way == 1


async def test_who_asks_again_when_answered_joins_those_who_wait():
    work = Worker()
    gathering = Gathering(work, most=10, pause_s=0.02, wait_s=0.02, behind_s=9, at_once=1)
    first = await asked(gathering, 1, 2)
    later = await asked(gathering, 3)
    work.go.set()

    await asyncio.gather(*first)
    again = await gathering.ask(4)

    assert [again, await later[0]] == [8, 6]
    assert work.groups == [[1, 2], [3, 4]]


async def test_what_fills_a_group_waits_for_none():
    work = Worker()
    gathering = Gathering(work, most=3, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=2)

    tasks = await asked(gathering, 1, 2, 3, 4, 5, 6, 7)
    work.go.set()

    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10, 12, 14]
    assert work.groups == [[1, 2, 3], [4, 5, 6], [7]]
    assert work.most_under_way == 2


async def test_whoever_comes_while_a_group_is_under_way_waits_for_one_large_group():
    work = Worker()
    gathering = Gathering(work, most=100, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=2)

    tasks = await asked(gathering, 1)
    for i in range(2, 6):
        tasks += await asked(gathering, i)
    work.go.set()

    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert work.groups == [[1], [2, 3, 4, 5]]
    assert work.most_under_way == 1


async def test_nobody_waits_long_for_a_group_that_takes_longer_than_any_should():
    work = Worker()
    gathering = Gathering(work, most=100, pause_s=0.001, wait_s=0.001, behind_s=0.05, at_once=3)

    tasks = await asked(gathering, 1)
    for i in range(2, 6):
        tasks += await asked(gathering, i)
        await asyncio.sleep(0.05)
    work.go.set()

    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert work.groups == [[1], [2], [3], [4, 5]]
    assert work.most_under_way == 3


async def test_large_calls_count_for_more_and_the_largest_goes_alone():
    work = Worker()
    gathering = Gathering(
        work, most=10, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1, size=lambda ask: ask
    )

    tasks = await asked(gathering, 4, 6, 50, 3)
    work.go.set()

    assert await asyncio.gather(*tasks) == [8, 12, 100, 6]
    assert work.groups == [[4, 6], [50], [3]]


async def test_an_error_belongs_to_its_group_and_the_next_one_goes_on():
    work = Worker()
    work.go.set()
    gathering = Gathering(work, most=2, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)

    found = await asyncio.gather(*(gathering.ask(i) for i in (1, -1, 3)), return_exceptions=True)

    assert [type(one) for one in found] == [ValueError, ValueError, int]


async def test_nothing_is_done_for_who_has_gone_before_it_began():
    work = Worker()
    gathering = Gathering(work, most=5, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)
    (busy,) = await asked(gathering, 1)
    gone, stays = await asked(gathering, 2, 3)

    gone.cancel()
    await asyncio.sleep(0)
    work.go.set()

    assert [await busy, await stays] == [2, 6]
    assert work.groups == [[1], [3]]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_group_belongs_to_none_of_its_callers():
    request = ContextVar("request", default="nobody")  # Ray Serve cancels by such a one
    work, seen = Worker(), []

    async def noted(asks):
        seen.append(request.get())
        return await work(asks)

    gathering = Gathering(noted, most=2, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)
    request.set("the first of them")
    gone, stays, next_group = await asked(gathering, 1, 2, 3)
    gone.cancel()
    work.go.set()

    assert await asyncio.gather(stays, next_group) == [4, 6]
    assert seen == ["nobody", "nobody"]


async def test_what_breaks_one_group_is_no_answer_of_another():
    work = Worker()
    work.go.set()

    async def by_parity(asks):
        places = range(len(asks))
        groups = [[i for i in places if asks[i] % 2 == odd] for odd in (0, 1)]
        return await by_group(asks, groups, work)

    gathering = Gathering(by_parity, most=10, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)
    tasks = await asked(gathering, 2, -1, 4, 1)
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[2]] == [4, 8]
    assert [type(answers[1]), type(answers[3])] == [ValueError, ValueError]


async def test_who_was_answered_late_joins_who_waited_for_a_place():
    work = Worker()
    gathering = Gathering(work, most=9, pause_s=0.01, wait_s=0.01, behind_s=0.001, at_once=1)
    first = await asked(gathering, 1, 2)
    later = await asked(gathering, 3)
    await asyncio.sleep(0.05)
    work.go.set()

    await asyncio.gather(*first)
    again = await gathering.ask(4)

    assert [again, await later[0]] == [8, 6]
    assert work.groups == [[1, 2], [3, 4]]


async def test_nobody_waits_for_a_group_that_was_called_off():
    async def called_off(_):
        raise asyncio.CancelledError

    gathering = Gathering(called_off, most=9, pause_s=0.001, wait_s=0.001, behind_s=9, at_once=1)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(gathering.ask(1), 5)


async def test_when_everybody_is_back_nobody_waits_for_others():
    work = Worker()
    work.go.set()
    gathering = Gathering(
        work, most=10, pause_s=60, wait_s=60, behind_s=60, at_once=1, size=lambda ask: ask
    )

    async def asks(*numbers):
        together = asyncio.gather(*(gathering.ask(number) for number in numbers))
        return await asyncio.wait_for(together, 5)

    assert await asks(4, 6) == [8, 12]  # they fill a group
    assert await asks(1, 2) == [2, 4]  # these do not
    assert work.groups == [[4, 6], [1, 2]]
