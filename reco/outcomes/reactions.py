"""Everything that readers and their programs did with a campaign's mails, as a report needs it."""

from dataclasses import dataclass

import polars as pl

from reco.outcomes import responses
from reco.outcomes.bands import Bands
from reco.outcomes.bots import TOUCHES, Networks, judge, touches
from reco.outcomes.guardrails import Guardrail, guard, harm_of
from reco.outcomes.purchases import RECIPIENT
from reco.outcomes.responses import Response, clicked_mails

HARM = ("unsubscribe", "complaint", "bounce")


@dataclass(frozen=True, slots=True)
class Reactions:
    """Judged touches (bots.judge), harm (type, delivery_id), and whose links are tracked."""

    touches: pl.DataFrame
    harm: pl.DataFrame
    tracked: set[str]

    @classmethod
    def nothing(cls) -> "Reactions":
        """Nobody did anything, and nobody was followed."""
        harm = pl.DataFrame(schema={"type": pl.String, "delivery_id": pl.String})
        return cls(judge(pl.DataFrame(schema=TOUCHES)), harm, set())

    @classmethod
    def of(
        cls,
        campaign_id: str,
        deliveries: pl.DataFrame,
        events: pl.LazyFrame,
        tracked: set[str],
        networks: Networks | None = None,
    ) -> "Reactions":
        """Reactions in the events of the lake. deliveries: as Ledger.rows gives them."""
        own = events.filter(pl.col("campaign_id") == campaign_id)
        mails = deliveries.with_columns(pl.lit(campaign_id).alias("campaign_id"))
        harm = own.filter(pl.col("type").is_in(HARM)).select("type", "delivery_id").unique()
        return cls(judge(touches(own, mails), networks), harm.collect(), tracked)

    def added_to(self, outcomes: pl.DataFrame) -> pl.DataFrame:
        """Outcomes (purchases.match) with clicked and clicked_raw, null where nobody can know."""
        known = pl.col("user_id").is_in(list(self.tracked))
        if not self.tracked or not outcomes.select(known.any()).item():
            return outcomes
        mails = clicked_mails(self.touches).rename({"delivery_id": "user_id"})
        clicks = mails.group_by(RECIPIENT).agg(pl.col("clicked", "clicked_raw").any())
        return outcomes.join(clicks, on="user_id", how="left", maintain_order="left").with_columns(
            pl.when(known).then(pl.col(name).fill_null(value=False)).alias(name)
            for name in ("clicked", "clicked_raw")
        )

    def responses(self, deliveries: pl.DataFrame, arms: list[str]) -> tuple[Response, ...]:
        """Responses of each arm; none where nobody is followed."""
        if not self.tracked:
            return ()
        return responses.responses(deliveries, self.touches, self.tracked, arms)

    def guardrails(
        self, deliveries: pl.DataFrame, control: str, bands: Bands
    ) -> tuple[Guardrail, ...]:
        """Harm of each arm so far; none before the first mail."""
        arms = harm_of(deliveries, self.harm)
        return guard(arms, control, bands.harm, deliveries.height) if arms else ()
