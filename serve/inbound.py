"""POST /v1/inbound: one raw message that came back, from the MTA that takes mail for bounces+…@."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body
from pydantic import BaseModel

from reco.errors import InputError, NotFound
from reco.outcomes.returned import ReturnedMail
from reco.subscribers.suppression import SuppressionList
from render.links import LinkKind, LinkSigner
from serve.stores import Stores

MOST_BYTES = 10_000_000


class Taken(BaseModel):
    """How many reports of each kind the message held, and what they did is done."""

    reports: dict[str, int]


def router(returned: ReturnedMail) -> APIRouter:
    """Routes below /v1."""
    routes = APIRouter()

    @routes.post("/inbound")
    async def inbound(raw: Annotated[bytes, Body(media_type="message/rfc822")]) -> Taken:
        """A bounce, complaint, automatic answer or unsubscription, as it arrived."""
        if not raw or len(raw) > MOST_BYTES:
            raise InputError(
                "The message cannot be taken.",
                f"It has {len(raw):,} bytes, and 1 to {MOST_BYTES:,} are read.",
                "Send one raw message as the body.",
            )
        return Taken(reports=dict(await asyncio.to_thread(returned.take, raw)))

    return routes


def returned_mail_of(stores: Stores) -> ReturnedMail:
    """What acts on bounces and complaints, on the stores of this process."""
    services = stores.services
    return ReturnedMail(
        stores.engine,
        SuppressionList(stores.engine, services.link_key),
        stores.bus,
        Leaving(LinkSigner(services.link_key)),
    )


class Leaving:
    """The token in List-Unsubscribe, told apart from any other subject."""

    def __init__(self, signer: LinkSigner) -> None:
        self._signer = signer

    def __call__(self, token: str) -> tuple[str, str] | None:
        """Campaign id and delivery behind a token of ours, else None."""
        try:
            link = self._signer.verify(token, LinkKind.UNSUBSCRIBE)
        except NotFound:
            return None
        return link.campaign_id, link.user_id
