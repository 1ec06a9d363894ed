"""Preflight: what a campaign would send, judged before it sends anything.

Takes a table of would-be mails (the graph made them, nothing was sent) and counts of the audience;
gives the findings and, beyond the campaign's limits, the reasons not to send.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import polars as pl

from reco.campaigns.campaign import Campaign, Limits
from reco.models.slates import Rung

# A would-be mail. `rung` is the lowest rung in it, `items` are shown item ids, "" an empty place.
MAILS: Final = pl.Schema(
    {
        "user_id": pl.String(),
        "arm": pl.String(),
        "rung": pl.Int16(),
        "items": pl.List(pl.String()),
        "size_bytes": pl.Int64(),  # of the HTML part
        "missing": pl.List(pl.String()),  # variables of the template without a value
        "fallback": pl.String(),  # why a better rung was not reached, "" it was
        "capped": pl.Boolean(),  # whether the frequency cap took a candidate from it
    }
)
KNOWS_LITTLE: Final = "the model has no picks for them"
OWN_RUNGS: Final = (Rung.FRESH.value, Rung.LIVE.value)  # what the model itself chose


@dataclass(frozen=True, slots=True)
class AudienceCounts:
    """The audience before any mail is made; each recipient counts once, at the first that fits."""

    total: int
    no_address: int = 0
    invalid_address: int = 0
    no_consent: int = 0
    suppressed: int = 0
    capped: int = 0  # had enough mails

    @property
    def mailable(self) -> int:
        """Recipients that a mail is made for."""
        excluded = self.no_address + self.invalid_address + self.no_consent + self.suppressed
        return self.total - excluded - self.capped


@dataclass(frozen=True, slots=True)
class Findings:
    """What the would-be mails are like."""

    mails: int
    by_arm: dict[str, int]
    by_rung: dict[str, int]  # of the arms that the model fills
    fallback_share: float  # of those, below the model's own rungs
    by_fallback: dict[str, int]  # of those, by the reason
    capped: int  # mails from which the frequency cap took a candidate
    empty_places: int  # marked "" in `items`
    short_mails: int  # show fewer items than `picks`
    blocked_mails: int  # show an item that the campaign itself blocks
    twice: int  # recipients with more than one mail
    distinct_items: int
    coverage: float | None  # share of the mailable catalogue that somebody sees
    size_kb: dict[str, float]  # p50, p95, max of the HTML
    over_size: int
    missing: dict[str, int]  # mails that lack a variable, by variable
    lacking: int  # mails that lack any variable


@dataclass(frozen=True, slots=True)
class Preflight:
    """The verdict over a whole audience; `problems` block the send, `notes` do not."""

    campaign_id: str
    audience: AudienceCounts
    findings: Findings
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the campaign may be sent."""
        return not self.problems

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self) | {"ok": self.ok}

    @classmethod
    def of(
        cls,
        rows: pl.DataFrame,
        campaign: Campaign,
        audience: AudienceCounts,
        mailable_items: int | None = None,
    ) -> "Preflight":
        """Judge `rows` (`MAILS`); `mailable_items` is the size of the catalogue after the rules.

        Raises ValueError when a column is missing.
        """
        if absent := MAILS.keys() - set(rows.columns):
            raise ValueError(f"preflight rows lack {', '.join(sorted(absent))}")
        found = _findings(rows, campaign, mailable_items)
        problems = (*_faults(found, audience), *_excesses(found, audience, campaign.limits))
        return cls(campaign.id, audience, found, problems, tuple(_notes(found, audience, campaign)))


def _findings(rows: pl.DataFrame, campaign: Campaign, mailable_items: int | None) -> Findings:
    modelled = [arm.name for arm in campaign.arms if arm.slate == "model"]
    personal = rows.filter(pl.col("arm").is_in(modelled))
    rungs = personal["rung"]
    below = personal.filter(pl.col("rung").is_in(OWN_RUNGS).not_())["fallback"]
    shown = rows.select(pl.col("items").list.filter(pl.element() != "")).to_series()
    distinct = shown.explode(empty_as_null=True).drop_nulls().n_unique()
    sizes_kb = rows["size_bytes"] / 1024
    return Findings(
        mails=len(rows),
        by_arm=_counts(rows["arm"]),
        by_rung={Rung(int(rung)).name.lower(): n for rung, n in _counts(rungs).items()},
        fallback_share=_share(_true(rungs.is_in(OWN_RUNGS).not_()), len(rungs)),
        by_fallback=_counts(below.fill_null("").replace("", KNOWS_LITTLE)),
        capped=_true(rows["capped"]),
        empty_places=_true(rows["items"].explode(empty_as_null=True) == ""),
        short_mails=_true(shown.list.len() < campaign.picks),
        blocked_mails=_showing(shown, campaign.rules.blocked_items),
        twice=_true(rows["user_id"].is_duplicated()),
        distinct_items=distinct,
        coverage=_share(distinct, mailable_items) if mailable_items else None,
        size_kb=_spread(sizes_kb),
        over_size=_true(sizes_kb > campaign.limits.size_kb),
        missing=_counts(rows["missing"].explode(empty_as_null=True).drop_nulls()),
        lacking=_true(rows["missing"].list.len() > 0),
    )


def _faults(found: Findings, audience: AudienceCounts) -> list[str]:
    """What is wrong in any number."""
    made, mailable = found.mails, audience.mailable
    faults = (
        (made == 0, "Nobody would get a mail."),
        (found.twice > 0, f"{found.twice:,} mails go to recipients who have another one."),
        (found.short_mails > 0, f"{_mails(found.short_mails)} would show fewer items than picks."),
        (found.blocked_mails > 0, f"{_mails(found.blocked_mails)} would show a blocked item."),
        (made != mailable, f"{mailable:,} recipients can be mailed, {_mails(made)} could be made."),
    )
    return [sentence for true, sentence in faults if true]


def _excesses(found: Findings, audience: AudienceCounts, limits: Limits) -> list[str]:
    """What is wrong beyond a limit of the campaign."""
    invalid = _share(audience.invalid_address, audience.total - audience.no_address)
    over_size = _share(found.over_size, found.mails)
    lacking = _share(found.lacking, found.mails)
    measures = (
        ("of the personal mails fall back", found.fallback_share, limits.fallback_share),
        ("of the addresses are invalid", invalid, limits.invalid_share),
        (f"of the mails exceed {limits.size_kb:g} KB", over_size, limits.over_size_share),
        (f"of the mails lack {', '.join(found.missing)}", lacking, limits.missing_share),
        (
            "of the audience had enough mails (message_cap)",
            _share(audience.capped, audience.total),
            limits.capped_share,
        ),
    )
    return [
        f"{share:.1%} {what}; the limit is {limit:.1%}."
        for what, share, limit in measures
        if share > limit
    ]


def _notes(found: Findings, audience: AudienceCounts, campaign: Campaign) -> list[str]:
    why_back = found.by_fallback.items()
    idle = [arm.name for arm in campaign.arms if arm.name not in found.by_arm]
    notes = (
        (len(idle), f"Nobody is in {', '.join(idle)}."),
        (audience.no_address, f"{audience.no_address:,} have no address."),
        (audience.no_consent, f"{audience.no_consent:,} have not consented and get no mail."),
        (audience.suppressed, f"{audience.suppressed:,} are on the suppression list."),
        (audience.capped, f"{audience.capped:,} had enough mails lately (message_cap)."),
        (found.capped, f"The frequency cap takes candidates from {_mails(found.capped)}."),
        *((n, f"{_mails(n)} of the model's arms fall back: {why}.") for why, n in why_back),
    )
    return [sentence for n, sentence in notes if n]


def _counts(values: pl.Series) -> dict[str, int]:
    """How often each value stands there, the most frequent first."""
    counted = values.rename("value").value_counts(sort=True)
    return {str(value): n for value, n in counted.iter_rows()}


def _showing(shown: pl.Series, items: Sequence[str]) -> int:
    """How many lists hold one of the items."""
    return _true(shown.list.set_intersection(list(items)).list.len() > 0) if items else 0


def _true(flags: pl.Series) -> int:
    """How many are true."""
    return flags.sum()  # type: ignore[return-value]  # polars types every sum alike


def _spread(values: pl.Series) -> dict[str, float]:
    """Median, 95th percentile and maximum, with one decimal; empty without values."""
    if values.is_empty():
        return {}
    p50, p95, top = np.percentile(values.to_numpy(), (50, 95, 100)).round(1).tolist()
    return {"p50": p50, "p95": p95, "max": top}


def _share(part: float, whole: int) -> float:
    return part / whole if whole else 0.0


def _mails(n: int) -> str:
    return "1 mail" if n == 1 else f"{n:,} mails"
