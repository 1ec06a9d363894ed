"""The sender actors of one run: started, watched, started again when killed, and sent home."""

from collections import Counter
from typing import Any, Final

import ray
import structlog
from ray.exceptions import RayActorError, RayTaskError

from serve.latency import Latencies
from serve.senders import SenderActor, SenderOrder

log = structlog.get_logger()

STOP_S: Final = 90.0  # longer than one mail may take


class Crew:
    """The sender actors of a run."""

    def __init__(self, order: SenderOrder, senders: int) -> None:
        # Ray never repeats a call that may have sent a mail.
        actor = ray.remote(
            num_cpus=0.1, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD"
        )(SenderActor)
        self._actors: list[Any] = [actor.remote(order) for _ in range(senders)]
        self._work = {actor.work.remote(): actor for actor in self._actors}
        self._hurried = False
        self.latencies = Latencies()
        self.by_node: Counter[str] = Counter()  # mails that left from each node of the cluster

    def watch(self) -> None:
        """Start again whoever was killed. Raises what a sender stopped for."""
        done, _ = ray.wait(list(self._work), num_returns=len(self._work), timeout=0)
        for work in done:
            actor = self._work.pop(work)
            try:
                ray.get(work)
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError as error:
                log.warning("a sender died and starts again", why=str(error).splitlines()[0])
            self._work[actor.work.remote()] = actor
            if self._hurried:
                actor.hurry.remote(True)

    def hurry(self, on: bool) -> None:
        """Let everybody go on without the model, or with it again."""
        if on != self._hurried:
            self._hurried = on
            log.warning("behind schedule: the model is left out" if on else "on schedule again")
            for actor in self._actors:
                actor.hurry.remote(on)

    def collect(self) -> None:
        """Take the timings of everyone who answers."""
        answers = [actor.take_timings.remote() for actor in self._actors]
        done, _ = ray.wait(answers, num_returns=len(answers), timeout=1.0)
        for answer in done:
            try:
                node, timings = ray.get(answer)
            except RayActorError:
                continue  # its timings died with it
            self.latencies.add(timings)
            self.by_node[node] += sum(t.recipients for t in timings if t.stage == "smtp")

    def dismiss(self) -> None:
        """Let everybody settle what is under way, then end the actors."""
        stops = [actor.stop.remote() for actor in self._actors]
        ray.wait([*stops, *self._work], num_returns=len(stops) + len(self._work), timeout=STOP_S)
        self.collect()
        for actor in self._actors:
            ray.kill(actor)
