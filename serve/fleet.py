"""The consumers of the stream: as many actors as their lag asks for, each with some buckets.

Who dies is put back to work. Buckets may change hands at any time: lake and rows stay right also
when two consumers work on the same ones.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import ray
import ray.exceptions

from reco.embedded import Services, connect_redis
from reco.errors import RecoError
from reco.events.bus import open_bus
from reco.events.lake import Lake
from reco.events.stream import Tally
from reco.features.online import OnlineStore
from reco.features.verify import verify
from reco.terminal import Report
from serve.profile_changes import ProfileChanges
from serve.scaling import Scaling, shares
from serve.stream import ConsumerActor, ConsumerStatus, log
from serve.stream_metrics import SkewMeter

TICK_S: Final = 1.0
IDLE_TICKS: Final = 3  # without a message and without lag: the stream is drained
ANSWER_S: Final = 10.0  # for a consumer to say how it is
SKEW_EVERY_S: Final = 60.0
COUNTED: Final = ("messages", "new", "duplicates", "early")  # of a Tally, beside its refusals
SKEW_SAMPLE: Final = 100  # users compared at a time, of one bucket after the other


@dataclass(slots=True)
class StreamSummary:
    """What the consumers have done so far."""

    messages: int = 0
    new: int = 0
    duplicates: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    early: int = 0  # more than a minute ahead of our clock
    consumers: int = 0
    lag: int = 0


def run_until_stopped(
    services: Services, most: int, progress: Report, *, drain: bool = False
) -> StreamSummary:
    """Process the stream until Ctrl-C; with `drain` only until nothing waits any more.

    Needs a connection to a Ray cluster. Raises ServiceUnavailable when the bus is not there.
    """
    open_bus(services.bus_url, Lake(services.lake).buckets).close()
    fleet, skew = Fleet(services, most), _Skew(services)
    profiles = ProfileChanges(services)
    summary, idle, skew_at = StreamSummary(), 0, time.monotonic() + SKEW_EVERY_S
    try:
        while not (drain and idle > IDLE_TICKS):
            time.sleep(TICK_S)
            before, summary = summary.messages, fleet.tick()
            profiles.follow()
            progress("stream", summary.messages, summary.messages + summary.lag)
            still = fleet.is_working() and summary.lag == 0 and summary.messages == before
            idle = idle + 1 if still and not profiles.is_behind else 0
            if time.monotonic() > skew_at:
                skew.measure()
                skew_at = time.monotonic() + SKEW_EVERY_S
    except KeyboardInterrupt:
        log.info("the stream stops")
    finally:
        profiles.close()
        fleet.stop()
    return summary


class Fleet:
    """The consumers of a lake. Needs a connection to a Ray cluster."""

    def __init__(self, services: Services, most: int) -> None:
        self._home = str(services.home)
        self._buckets = Lake(services.lake).buckets
        self._scaling = Scaling(min(most, self._buckets))
        self._actors: list[Any] = []
        self._works: list[Any] = []
        self._statuses: dict[int, ConsumerStatus] = {}
        self._gone: Counter[str] = Counter()  # done by processes that are no more

    def tick(self) -> StreamSummary:
        """Look after the consumers once."""
        self._resize()
        self._revive()
        for i, status in self._ask():
            before = self._statuses.get(i)
            if before is not None and before.pid != status.pid:
                self._gone += _counts(before.tally)
            self._statuses[i] = status
        summary = self._summary()
        self._scaling.see(summary.lag)
        if self._scaling.wanted != summary.consumers:
            log.info("consumers by lag", wanted=self._scaling.wanted, lag=summary.lag)
        return summary

    def is_working(self) -> bool:
        """Whether every consumer has taken its buckets and said how far it is."""
        known = [status.buckets for status in self._statuses.values() if status.lag is not None]
        return sum(map(len, known)) == self._buckets

    def pids(self) -> list[int]:
        """Processes of the consumers, for operators and for the tests that kill them."""
        return [status.pid for status in self._statuses.values()]

    def stop(self) -> None:
        """Let every consumer finish its batch."""
        for actor in self._actors:
            actor.stop.remote()
        with suppress(ray.exceptions.RayError):
            ray.wait(self._works, num_returns=len(self._works), timeout=ANSWER_S)
        for actor in self._actors:
            ray.kill(actor)

    def _resize(self) -> None:
        wanted = self._scaling.wanted
        while len(self._actors) < wanted:
            # Restarted by Ray for ever; its method `work` only by us, so that we know of it.
            actor = ray.remote(ConsumerActor).options(
                num_cpus=0.1, max_restarts=-1, max_task_retries=0, max_concurrency=4
            )
            self._actors.append(actor.remote(self._home, f"consumer-{len(self._actors)}"))
            self._works.append(self._actors[-1].work.remote())
        # Told every time: an actor that was started again has forgotten it.
        parts = shares(self._buckets, wanted)
        for i, actor in enumerate(self._actors):
            actor.assign.remote(parts[i] if i < wanted else ())

    def _revive(self) -> None:
        done, _ = ray.wait(self._works, num_returns=len(self._works), timeout=0)
        for ref in done:
            i = self._works.index(ref)
            log.warning("a consumer died and starts again", consumer=i)
            self._works[i] = self._actors[i].work.remote()

    def _ask(self) -> Iterator[tuple[int, ConsumerStatus]]:
        asked = [actor.status.remote() for actor in self._actors]
        for i, ref in enumerate(asked):
            # One that does not answer is being started again, or very busy.
            with suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                yield i, ray.get(ref, timeout=ANSWER_S)

    def _summary(self) -> StreamSummary:
        counts = self._gone.copy()
        for status in self._statuses.values():
            counts += _counts(status.tally)
        done = {name: counts.pop(name, 0) for name in COUNTED}
        lag = sum(status.lag or 0 for status in self._statuses.values())
        consumers = self._scaling.wanted
        return StreamSummary(**done, refused=dict(counts), consumers=consumers, lag=lag)


class _Skew:
    """Compares a few served rows with the lake, now and then, and exports the difference."""

    def __init__(self, services: Services) -> None:
        self._lake = Lake(services.lake)
        self._online = OnlineStore(connect_redis(services.redis_url))
        self._meter = SkewMeter()
        self._bucket = 0

    def measure(self) -> None:
        """Look at the next bucket."""
        self._bucket = (self._bucket + 1) % self._lake.buckets
        now, buckets = datetime.now(UTC), [self._bucket]
        try:
            found = verify(self._lake, self._online, None, now, sample=SKEW_SAMPLE, buckets=buckets)
        except RecoError as error:
            log.warning("skew was not measured", why=str(error))
            return
        self._meter.report(found)
        if found.differing:
            log.error("served features differ from the lake", examples=found.examples[:3])


def _counts(tally: Tally) -> Counter[str]:
    return tally.refused + Counter({name: getattr(tally, name) for name in COUNTED})
