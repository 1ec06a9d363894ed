"""Looks at a running campaign's harm from time to time, and says when it must pause.

Takes counts from the ledger and events from the lake; cheap enough for every few seconds.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import polars as pl
from sqlalchemy import any_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Engine
from sqlalchemy.types import String

from reco.campaigns.campaign import Campaign
from reco.database import DELIVERIES
from reco.events.lake import Lake
from reco.outcomes.bands import Bands
from reco.outcomes.guardrails import Harm, guard
from reco.outcomes.reactions import HARM

LOOK_S: Final = 15.0  # between two looks: a read of the lake's new events costs about 0.1 s


class Watch:
    """Watches one campaign. Blocking."""

    def __init__(
        self, campaign: Campaign, since: datetime, engine: Engine, lake: Lake, bands: Bands
    ) -> None:
        self._id = campaign.id
        named = [arm.name for arm in campaign.arms if arm.slate == "editorial"]
        self._control = [*named, campaign.arms[0].name][0]
        self._since = since.astimezone(UTC)  # polars compares times of one zone name only
        self._engine = engine
        self._lake = lake
        self._bands = bands
        self._looked_at = -LOOK_S

    def trouble(self) -> str:
        """Why the campaign must pause now; "" while nothing is surely wrong, or it is not time."""
        if time.monotonic() - self._looked_at < LOOK_S:
            return ""
        self._looked_at = time.monotonic()
        arms, audience = self._mails()
        if not arms:
            return ""
        found = guard(self._with_events(arms), self._control, self._bands.harm, audience)
        return " ".join(guardrail.text for guardrail in found if guardrail.harmful)

    def _mails(self) -> tuple[dict[str, Harm], int]:
        """Mails handed over and refused of each arm, and the size of the audience."""
        c = DELIVERIES.c
        query = (
            select(c.arm, c.state, func.count())
            .where(c.campaign_id == self._id)
            .group_by(c.arm, c.state)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        counts = {(arm, state): n for arm, state, n in rows}
        arms: dict[str, Harm] = {}
        for arm in sorted({arm for arm, _ in counts}):
            refused = counts.get((arm, "failed"), 0)
            mails = refused + counts.get((arm, "accepted"), 0)
            if mails:
                arms[arm] = Harm(mails, bounce=refused)
        return arms, sum(counts.values())

    def _with_events(self, arms: dict[str, Harm]) -> dict[str, Harm]:
        """The same with unsubscriptions, complaints and late bounces, one of each a mail."""
        events = (
            self._lake.events(columns=["type", "timestamp", "campaign_id", "delivery_id"])
            .filter(
                pl.col("type").is_in(HARM)
                & (pl.col("campaign_id") == self._id)
                & (pl.col("timestamp") >= self._since)
            )
            .select("type", "delivery_id")
            .unique()
            .collect()
        )
        for arm, kind in self._arms_of(events):
            if arm in arms:
                arms[arm] = replace(arms[arm], **{kind: getattr(arms[arm], kind) + 1})
        return arms

    def _arms_of(self, events: pl.DataFrame) -> list[tuple[str, str]]:
        """Arm and type of each event on an accepted mail: a refused one has bounced already."""
        c = DELIVERIES.c
        ids = cast(literal(events["delivery_id"].drop_nulls().unique().to_list(), ARRAY(String)),
                   ARRAY(String))  # fmt: skip
        query = select(c.user_id, c.arm).where(
            c.campaign_id == self._id, c.state == "accepted", c.user_id == any_(ids)
        )
        with self._engine.connect() as connection:
            arms = {row.user_id: row.arm for row in connection.execute(query)}
        return [(arms[d], kind) for kind, d in events.iter_rows() if d in arms]
