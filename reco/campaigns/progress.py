"""How far a campaign is, read from the ledger in one look: states, arms, rungs, speed.

The same rows that the report counts later, so the same numbers.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.engine import Engine

from reco.campaigns.delivery import State
from reco.database import DELIVERIES
from reco.models.slates import Rung

SPEED_S: Final = 10  # over which the speed is taken
OPEN: Final = (State.QUEUED, State.CLAIMED, State.HANDING_OFF)


@dataclass(frozen=True, slots=True)
class Progress:
    """Deliveries of a campaign now."""

    audience: int
    states: dict[str, int]  # every state, 0 included
    arms: dict[str, dict[str, int]]  # state -> deliveries, of each arm
    rungs: dict[str, int]  # accepted mails by the rung of their weakest pick
    reasons: dict[str, int]  # why recipients were suppressed, refused or put off
    per_s: float  # accepted mails a second, over the last SPEED_S

    @property
    def done(self) -> int:
        """Deliveries that need nothing more now."""
        return self.audience - sum(self.states[state] for state in OPEN)

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at this speed; None while nothing moves."""
        return (self.audience - self.done) / self.per_s if self.per_s else None


def progress(engine: Engine, campaign_id: str) -> Progress:
    """Progress of a campaign; all 0 before its audience is in the ledger."""
    c = DELIVERIES.c
    mine = c.campaign_id == campaign_id
    recent = c.settled_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, SPEED_S)
    grouped = (
        select(c.state, c.arm, c.rung, func.count(), func.count().filter(recent))
        .where(mine)
        .group_by(c.state, c.arm, c.rung)
    )
    why = (
        select(c.reply, func.count())
        .where(mine, c.state.in_([State.SUPPRESSED, State.FAILED, State.DEFERRED]))
        .group_by(c.reply)
        .order_by(func.count().desc())
        .limit(8)
    )
    with engine.connect() as connection:
        rows = connection.execute(grouped).all()
        reasons = {reply or "": n for reply, n in connection.execute(why)}
    states: Counter[str] = Counter({state.value: 0 for state in State})
    arms: dict[str, Counter[str]] = {}
    rungs: Counter[str] = Counter()
    moved = 0
    for state, arm, rung, n, lately in rows:
        states[state] += n
        arms.setdefault(arm, Counter())[state] += n
        if state == State.ACCEPTED:
            moved += lately
            rungs[Rung(rung or 0).name.lower()] += n
    return Progress(
        sum(states.values()),
        dict(states),
        {arm: dict(arms[arm]) for arm in sorted(arms)},
        {rung.name.lower(): rungs[rung.name.lower()] for rung in Rung if rungs[rung.name.lower()]},
        reasons,
        moved / SPEED_S,
    )
