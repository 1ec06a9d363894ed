"""/i/{token}: pictures of the moment when a mail is opened. Always 200 with a real image.

Mail proxies keep an error for weeks, so there are none: a bad token, a store that is down or slow,
all give a neutral picture. A token names a campaign and an item, never a person: no consent needed.
"""

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import structlog
from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.exc import SQLAlchemyError

from reco.campaigns.campaign import Campaign
from reco.campaigns.store import CampaignStore
from reco.catalogue import Catalogue
from reco.errors import NotFound, RecoError
from reco.tables import item_keys
from render.formats import format_price
from render.links import Link, LinkKind, LinkSigner
from render.live_images import COUNTDOWN, availability, countdown, neutral
from serve.stores import Stores

log = structlog.get_logger()

BUDGET_S: Final = 0.15  # then the neutral picture
CATALOGUE_S: Final = 60.0  # how old prices and stock may be
HEADERS: Final = {
    "Cache-Control": "no-cache, no-store, must-revalidate, max-age=0",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
}


class LivePictures:
    """Draws what a token stands for. Blocking; call it in a thread."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._signer = LinkSigner(stores.services.link_key)
        self._campaigns = CampaignStore(stores.engine)
        self._campaign = lru_cache(maxsize=256)(self._read_campaign)
        self._catalogue = stores.catalogue
        self._read_at = time.monotonic()

    def picture(self, token: str) -> bytes:
        """PNG; the neutral one where nothing is known."""
        try:
            link = self._signer.verify(token, LinkKind.IMAGE)
            if link.number == COUNTDOWN:
                ends_at = self._campaign(link.campaign_id).offer_ends_at
                return countdown(ends_at, datetime.now(UTC)) if ends_at else neutral()
            return self._availability(link)
        except NotFound:
            return neutral()
        except (RecoError, SQLAlchemyError, OSError) as error:
            log.warning("a picture is neutral", why=str(error))
            return neutral()

    def _availability(self, link: Link) -> bytes:
        catalogue = self._fresh()
        row = int(catalogue.index.rows(item_keys([link.user_id]))[0]) if link.user_id else -1
        if row < 0:
            return neutral()
        item, campaign = catalogue.frame.row(row, named=True), self._campaign(link.campaign_id)
        currency = item["currency"] or campaign.currency
        return availability(format_price(item["price"], currency, campaign.locale), item["stock"])

    def _fresh(self) -> Catalogue:
        """The catalogue, at most CATALOGUE_S old; the last one when the lake cannot be read."""
        if time.monotonic() - self._read_at > CATALOGUE_S:
            self._read_at = time.monotonic()  # the others go on with what there is
            self._catalogue = Catalogue.of(self._stores.lake.items())
        return self._catalogue

    def _read_campaign(self, campaign_id: str) -> Campaign:
        return self._campaigns.get(campaign_id).campaign


def router(pictures: LivePictures) -> APIRouter:
    """Route of the pictures."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/i/{token}", methods=["GET", "HEAD"])
    async def picture(token: str) -> Response:
        drawing = asyncio.to_thread(pictures.picture, token)
        try:
            png = await asyncio.wait_for(drawing, BUDGET_S)
        except TimeoutError:
            png = neutral()
        return Response(png, media_type="image/png", headers=HEADERS)

    return routes
