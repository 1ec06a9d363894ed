"""SIMULATED readers: known tastes, a known lift, bots, proxies and bounces.

No number that comes from here says anything of real people; it says whether the report finds what
was put in. Gives a ledger and raw events as the line itself would leave them.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from reco.experiments.assignment import arms
from reco.models.slates import Reason, Rung
from reco.outcomes.bots import TRAP_SLOT
from reco.tables import EVENTS

SENT = datetime(2026, 3, 2, 9, tzinfo=UTC)
ARMS = {"control": 0.3, "personal": 0.7}
CAMPAIGN = {
    "campaign_id": "simulated",
    "config": {
        "arms": [
            {"name": "control", "weight": 0.3, "slate": "editorial"},
            {"name": "personal", "weight": 0.7, "slate": "model"},
        ],
        "currency": "EUR",
    },
}
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/13{}.0.0.0"
ITEMS = 60
PICKS = 3


@dataclass(frozen=True)
class World:
    """What is true: chances of a reader, by arm."""

    click: dict[str, float]  # that somebody clicks a pick of the mail
    buy: dict[str, float]  # that the household buys a pick within the window
    bots: float = 0.15  # mails that a scanner opens and clicks through
    apple: float = 0.4  # mails whose pictures Apple's proxy fetches
    bounce: float = 0.02
    followed: float = 0.8  # readers who agreed

    def lift(self, what: str) -> float:
        """True difference between the arms."""
        rates = {"clicked": self.click, "any_bought": self.buy}[what]
        return rates["personal"] - rates["control"]


def simulate(world: World, seed: int, readers: int) -> tuple[pl.DataFrame, pl.DataFrame, set[str]]:
    """Ledger rows, raw events, and who is followed."""
    rng = np.random.default_rng(seed)
    users = [f"r{seed}-{i}" for i in range(readers)]
    assigned = arms(f"simulated-{seed}", users, ARMS)
    followed = {u for u in users if rng.random() < world.followed}
    events: list[dict[str, object]] = []
    rows = []
    for user, arm in zip(users, assigned, strict=True):
        items = [f"i{k}" for k in rng.choice(ITEMS, PICKS, replace=False)]
        bounced = rng.random() < world.bounce
        at = SENT + timedelta(seconds=float(rng.uniform(0, 600)))
        rows.append(
            {"user_id": user, "arm": arm, "state": "failed" if bounced else "accepted",
             "items": items, "scores": [0.1] * PICKS, "reasons": [int(Reason.REPEAT)] * PICKS,
             "rung": int(Rung.LIVE), "size_bytes": 30_000, "accepted_at": None if bounced else at}
        )  # fmt: skip
        events += _before(rng, user)
        if not bounced:
            events += _purchases(rng, world, user, arm, items, at)
        if not bounced and user in followed:
            events += _reading(rng, world, user, arm, at) + _programs(rng, world, user, at)
    schema = pl.from_arrow(EVENTS.empty_table()).schema
    plain = dict.fromkeys(schema)
    numbered = [plain | {"event_id": f"e{i}"} | event for i, event in enumerate(events)]
    ledger = pl.DataFrame(
        rows,
        schema_overrides={"accepted_at": pl.Datetime("us", "UTC"), "reasons": pl.List(pl.Int16)},
    )
    return ledger, pl.DataFrame(numbered, schema=schema), followed


def _touch(user: str, kind: str, at: datetime, agent: str, address: str, slot: int = 0):
    attributes = f'{{"user_agent": "{agent}", "address": "{address}", "method": "GET"}}'
    return {"user_id": user, "type": kind, "timestamp": at, "campaign_id": "simulated",
            "delivery_id": user, "slot": slot, "attributes": attributes}  # fmt: skip


def _reading(rng, world, user, arm, at):
    agent, address = BROWSER.format(rng.integers(10)), f"198.51.{rng.integers(256)}.0/24"
    if rng.random() >= world.click[arm]:
        return []
    when = at + timedelta(seconds=float(10 + rng.lognormal(8, 1.2)))
    out = [_touch(user, "open", when - timedelta(seconds=5), agent, address)]
    for j in range(rng.choice([1, 1, 2])):
        clicked = when + timedelta(seconds=30 * j)
        out.append(_touch(user, "click", clicked, agent, address, int(rng.integers(PICKS))))
    return out


def _programs(rng, world, user, at):
    out = []
    if rng.random() < world.apple:
        out.append(_touch(user, "open", at + timedelta(minutes=1), "Mozilla/5.0", "17.58.1.0/24"))
    if rng.random() < world.bots:
        start = at + timedelta(seconds=float(rng.uniform(0.5, 60)))
        for slot in (*range(PICKS), TRAP_SLOT):
            out.append(
                _touch(user, "click", start + timedelta(seconds=0.2 * min(slot, 4)),
                       BROWSER.format(0), f"192.0.{rng.integers(256)}.0/24", slot)
            )  # fmt: skip
    return out


def _before(rng, user):
    """What the household bought before: it explains most of what it buys later."""
    taste = rng.gamma(2.0, 10.0)
    return [
        {"user_id": user, "type": "purchase", "timestamp": SENT - timedelta(days=float(d)),
         "item_id": f"old{rng.integers(500)}", "value": float(taste * rng.uniform(0.5, 1.5))}
        for d in rng.uniform(1, 27, rng.integers(0, 4))
    ]  # fmt: skip


def _purchases(rng, world, user, arm, items, at):
    if rng.random() >= world.buy[arm]:
        return []
    return [
        {"user_id": user, "type": "purchase", "item_id": str(rng.choice(items)),
         "timestamp": at + timedelta(days=float(rng.uniform(0.1, 27))),
         "value": float(rng.gamma(2.0, 8.0))}
    ]  # fmt: skip
