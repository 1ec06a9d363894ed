"""/v1: what programs ask for. Every call needs the API key."""

import asyncio
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException

from reco.campaigns.campaign import Campaign
from reco.campaigns.cancelling import cancel
from reco.campaigns.ledger import Ledger
from reco.campaigns.store import CampaignState, CampaignStore, StoredCampaign
from reco.subscribers.consent import ConsentLog
from serve import calls, inbound, subscribers
from serve.direct_route import KeyCheck, add_direct_route
from serve.graph import Graph
from serve.inbound import returned_mail_of
from serve.letterhead import try_template
from serve.past import Past
from serve.preview import assemble_one
from serve.problems import unauthorized
from serve.schemas import (
    CampaignStatus,
    OfCampaign,
    PreviewRequest,
    PreviewResponse,
    RecommendRequest,
    RecommendResponse,
    SendRequest,
    SendResponse,
)
from serve.stores import Stores


class Door(calls.Asked, Protocol):
    """What the API needs of the gateway."""

    stores: Stores
    graph: Graph
    campaigns: CampaignStore
    ledger: Ledger

    def start(self, campaign: Campaign, *, resumed: bool = False) -> None:
        """Let a campaign run on its own."""


def install(app: FastAPI, door: Door) -> None:
    """Routes of /v1 on a gateway, those first that are asked for most."""
    check = _key_check(door.stores.services.api_key)
    _direct_routes(app, door, check)
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(check)])
    _preview_route(v1, door)
    _campaign_routes(v1, door)
    v1.include_router(inbound.router(returned_mail_of(door.stores)))
    v1.include_router(
        subscribers.router(door.stores.services.verifier_url, ConsentLog(door.stores.engine))
    )
    app.include_router(v1)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}


def _key_check(api_key: str) -> KeyCheck:
    async def check(  # asynchronous, or each request would wait for a thread
        authorization: Annotated[str, Header()] = "", x_api_key: Annotated[str, Header()] = ""
    ) -> None:
        if not calls.is_key(api_key, authorization, x_api_key):
            raise HTTPException(401, unauthorized().title)

    return check


def _direct_routes(app: FastAPI, door: Door, check: KeyCheck) -> None:
    async def recommend(body: RecommendRequest) -> RecommendResponse:
        """Ranked items of up to 512 subscribers, by the rules given."""
        return await calls.recommend(door, body)

    async def send(body: SendRequest) -> SendResponse:
        """Send one mail now; asking again never sends it twice."""
        return await calls.send(door, body)

    add_direct_route(app, "/v1/recommend", recommend, check)
    add_direct_route(app, "/v1/send", send, check)


def _preview_route(v1: APIRouter, door: Door) -> None:
    @v1.post("/preview")
    async def preview(body: PreviewRequest) -> PreviewResponse:
        """The mail that a subscriber would get, and why; nothing is sent or counted."""
        campaign = await _campaign(door, body)
        made = await assemble_one(door.graph, campaign, body.user_id, body.arm)
        mail, headers = made.rendered[0], message_from_bytes(made.messages[0], policy=default)
        return PreviewResponse(
            subject=mail.subject,
            preheader=mail.preheader,
            html=mail.html,
            text=mail.text,
            headers={name: str(value) for name, value in headers.items()},
            arm=made.arms[0],
            picks=calls.picks(made.slates, 0, made.item_ids[0], made.titles[0], made.bought[0]),
            removed={rule: tuple(items) for rule, items in made.removed.items()},
            model=made.model_version,
            fallback=made.fallback,
            took_ms=made.took_ms,
        )


def _campaign_routes(v1: APIRouter, door: Door) -> None:
    async def status(stored: StoredCampaign) -> CampaignStatus:
        counts = await asyncio.to_thread(door.ledger.counts, stored.campaign.id)
        return CampaignStatus(
            campaign_id=stored.campaign.id,
            state=stored.state.value,
            created_at=stored.created_at,
            started_at=stored.started_at,
            finished_at=stored.finished_at,
            note=stored.note,
            deliveries=counts,
        )

    @v1.post("/campaigns", status_code=202)
    async def create(campaign: Campaign) -> CampaignStatus:
        """Start a campaign, or let it wait for its time; it runs on its own."""
        await asyncio.to_thread(try_template, campaign)
        await asyncio.to_thread(Past(door.stores.redis).check, campaign.as_of)
        stored = await asyncio.to_thread(door.campaigns.create, campaign)
        # Events are listened to from now on, not only once its driver is up.
        if campaign.trigger is not None and not campaign.window.opens_in(datetime.now(UTC)):
            stored = await asyncio.to_thread(door.campaigns.join, campaign.id)
        await asyncio.to_thread(door.start, campaign)
        return await status(stored)

    @v1.get("/campaigns/{campaign_id}")
    async def show(campaign_id: str) -> CampaignStatus:
        """How far a campaign is."""
        return await status(await asyncio.to_thread(door.campaigns.get, campaign_id))

    @v1.post("/campaigns/{campaign_id}/pause")
    async def pause(campaign_id: str) -> CampaignStatus:
        """Stop after the chunks that are under way."""
        move = door.campaigns.move
        return await status(await asyncio.to_thread(move, campaign_id, CampaignState.PAUSED))

    @v1.post("/campaigns/{campaign_id}/cancel")
    async def cancelled(campaign_id: str) -> CampaignStatus:
        """End it for good: what is under way is settled, whoever still waits gets no mail."""
        stored = await asyncio.to_thread(cancel, door.campaigns, door.ledger, campaign_id)
        return await status(stored)

    @v1.post("/campaigns/{campaign_id}/resume")
    async def resume(campaign_id: str) -> CampaignStatus:
        """Go on with a paused campaign; one that runs is joined, for its driver may have died.

        One that never ran is a draft again: its single sends go on, its audience gets no mail.
        """
        stored = await asyncio.to_thread(door.campaigns.resume, campaign_id)
        if stored.goes_on:
            await asyncio.to_thread(door.start, stored.campaign, resumed=True)
        return await status(stored)


async def _campaign(door: Door, body: OfCampaign) -> Campaign:
    if body.campaign is not None:
        return body.campaign
    stored = await asyncio.to_thread(door.campaigns.get, body.campaign_id or "")
    return stored.campaign
