"""One mail as a page, with the decisions behind it: `reco preview`."""

import asyncio
from base64 import b64encode
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from reco.campaigns.campaign import Campaign
from reco.embedded import Services
from reco.errors import NotFound
from reco.experiments.assignment import HOLDOUT, OUTSIDE
from reco.models.slates import Rung
from render.images import inline_images
from render.reasons import reason_sentence
from serve.audience import assigned_arms
from serve.chunks import Assembled, Choice, Mode, Request
from serve.graph import Graph

WHY_NONE: Final = {  # the reasons of serve.reading, in words
    "unknown": "No subscriber has this id; ids are told apart by upper and lower case.",
    "no_address": "The subscriber has no address: they are recommended to, never mailed.",
    "no_consent": "The subscriber has not agreed to mails.",
    "id_is_an_address": "The id is an e-mail address, and no link may hold one.",
    "message_cap": "The subscriber had enough mails lately (message_cap).",
    "unsubscribe": "The address is on the suppression list: its owner unsubscribed.",
    "complaint": "The address is on the suppression list: its owner called a mail spam.",
    "hard_bounce": "The address is on the suppression list: mail to it bounced for good.",
    "soft_bounce": "The address is on the suppression list for now: mail to it keeps bouncing.",
    "invalid": "The address is on the suppression list: no server takes mail for it.",
    "manual": "The address is on the suppression list: somebody put it there.",
}


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
    arm = arm or assigned_arms(campaign, [user_id])[0]
    if arm not in {*campaign.weights, HOLDOUT, OUTSIDE}:
        raise NotFound(
            f"Campaign {campaign.id} has no arm {arm}.", f"It has {[*campaign.weights]}."
        )
    spec = campaign.model_dump_json().encode()
    made = await graph.assemble(Request(Choice.of(campaign), [user_id], [arm], Mode.CHECK, spec))
    for missing in (*made.withheld, *made.broken):
        why = WHY_NONE.get(missing.reason, missing.reason)
        raise NotFound(f"{user_id} gets no mail of {campaign.id}.", why)
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
    """Write a page with the mail at two widths and why it is so, pictures included, to `out`.

    Needs a Ray cluster in which the application runs. Raises NotFound as assemble_one does.
    """
    made = asyncio.run(assemble_one(Graph.of_app(scorer_budget_s), campaign, user_id, arm))
    picks = _picks(made)
    out.write_text(preview_page(campaign, user_id, made, services), encoding="utf-8")
    return PreviewSummary(
        page=out.resolve(),
        subject=made.rendered[0].subject,
        text=made.rendered[0].text,
        arm=made.arms[0],
        picks=[f"{p.title} ({p.item_id}): {p.reason}, {p.rung}, {p.score:.3f}" for p in picks],
        removed=made.removed,
        model=made.model_version,
        fallback=made.fallback,
    )


@dataclass(frozen=True, slots=True)
class Pick:
    """An item of the mail, in words."""

    item_id: str
    title: str
    reason: str
    rung: str
    score: float


def _picks(made: Assembled) -> list[Pick]:
    slates = made.slates
    columns = (slates.reasons[0].tolist(), slates.rungs[0].tolist(), slates.scores[0].tolist())
    bought = made.bought[0] if made.bought else [""] * len(made.titles[0])
    rows = zip(made.item_ids[0], made.titles[0], bought, *columns, strict=False)
    return [
        Pick(
            item_id, title, reason_sentence(reason, bought=taken) or "no reason",
            Rung(rung).name.lower(), score,
        )
        for item_id, title, taken, reason, rung, score in rows
    ]  # fmt: skip


def preview_page(
    campaign: Campaign, user_id: str, made: Assembled, services: Services, *, sent: bool = False
) -> str:
    """The mail at two widths, its headers, and why each item stands in it."""
    environment = Environment(
        loader=PackageLoader("serve", ""), autoescape=True, undefined=StrictUndefined
    )
    message = message_from_bytes(made.messages[0], policy=default)
    mail = made.rendered[0]
    return environment.get_template("preview.html.jinja").render(
        campaign=campaign,
        user_id=user_id,
        made=made,
        picks=_picks(made),
        mail=mail,
        sent=sent,
        html=inline_images(mail.html, lambda url: _picture(url, services)),
        headers=[(name, str(value)) for name, value in message.items()],
    )


def _picture(url: str, services: Services) -> str | None:
    """A category's picture as a data: URI, so that the page shows it without a server."""
    if not url.startswith(f"{services.public_url}/assets/"):
        return None
    name = Path(unquote(urlsplit(url).path)).name
    file = services.home / "assets" / "categories" / name
    if not file.is_file():
        return None
    return f"data:image/png;base64,{b64encode(file.read_bytes()).decode()}"
