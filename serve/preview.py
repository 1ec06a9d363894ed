"""One mail as a file, with the decisions behind it: `reco preview`."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from reco.campaigns.campaign import Campaign
from reco.embedded import Services
from reco.errors import NotFound
from reco.experiments.assignment import arms
from reco.models.slates import Rung
from render.reasons import reason_sentence
from serve.chunks import Assembled, Choice, Mode, Request
from serve.graph import Graph


@dataclass(frozen=True, slots=True)
class PreviewSummary:
    """Where the mail is, and why it is as it is."""

    page: Path
    subject: str
    text: str
    arm: str
    picks: list[str]
    removed: dict[str, list[str]]
    model: str
    fallback: str


async def assemble_one(
    graph: Graph, campaign: Campaign, user_id: str, arm: str | None
) -> Assembled:
    """The mail that a subscriber would get; nothing is sent or counted.

    Raises NotFound with the reason when there is none.
    """
    arm = arm or arms(campaign.arm_salt, [user_id], campaign.weights)[0]
    if arm not in campaign.weights:
        raise NotFound(
            f"Campaign {campaign.id} has no arm {arm}.", f"It has {[*campaign.weights]}."
        )
    spec = campaign.model_dump_json().encode()
    made = await graph.assemble(Request(Choice.of(campaign), [user_id], [arm], Mode.CHECK, spec))
    for missing in (*made.withheld, *made.broken):
        raise NotFound(f"{user_id} gets no mail of {campaign.id}.", missing.reason)
    return made


def write_preview(
    campaign: Campaign,
    user_id: str,
    arm: str | None,
    services: Services,
    out: Path,
    *,
    scorer_budget_s: float = 15.0,
) -> PreviewSummary:
    """Write the HTML part to `out`. Needs a Ray cluster in which the application runs."""
    made = asyncio.run(assemble_one(Graph.of_app(scorer_budget_s), campaign, user_id, arm))
    mail, slates = made.rendered[0], made.slates
    out.write_text(mail.html, encoding="utf-8")
    picks = [
        f"{title} ({item_id}): {reason_sentence(reason) or 'no reason'}, "
        f"{Rung(rung).name.lower()}, {score:.3f}"
        for item_id, title, reason, rung, score in zip(
            made.item_ids[0],
            made.titles[0],
            slates.reasons[0].tolist(),
            slates.rungs[0].tolist(),
            slates.scores[0].tolist(),
            strict=False,
        )
    ]
    return PreviewSummary(
        page=out.resolve(),
        subject=mail.subject,
        text=mail.text,
        arm=made.arms[0],
        picks=picks,
        removed=made.removed,
        model=made.model_version,
        fallback=made.fallback,
    )
