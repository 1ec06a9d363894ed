"""/p/{token}: the preference page, which is also where the one-click interests of a mail lead.

A GET changes nothing, whoever follows the link: mail scanners do. One button stores the answer.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import recipient_of
from reco.campaigns.store import CampaignStore
from reco.errors import NotFound, RecoError
from reco.events.bus import Bus
from reco.subscribers.interests import interests_of, write_interests
from reco.subscribers.store import SubscriberStore
from reco.tables import user_bucket
from render.images import spoken
from render.links import Link, LinkKind, LinkSigner
from serve.bodies import read_form
from serve.public import PAGE, UNSEEN
from serve.stores import Stores

log = structlog.get_logger()

MOST_BYTES: Final = 16_384  # of a form
FORM: Final = (
    '<form method="post"><fieldset style="border:0;padding:0;margin:0 0 1.5em">'
    "<legend>What shall we show you more of?</legend>{boxes}</fieldset>"
    '<button style="font:inherit;padding:.5em 1em">Save</button></form>'
    '<p><a href="{leave}">No more mails of this kind</a></p>'
)
BOX: Final = (
    '<label style="display:block;padding:.4em 0"><input type="checkbox" name="interest" '
    'value="{name}"{checked}> {label}</label>'
)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What one reader may choose from, and has chosen."""

    link: Link
    choices: tuple[str, ...]
    chosen: tuple[str, ...]


class PreferencePage:
    """Reads and stores preferences. Blocking; call it in a thread."""

    def __init__(self, stores: Stores, bus: Bus) -> None:
        self._engine = stores.engine
        self._signer = LinkSigner(stores.services.link_key)
        self._root = stores.services.public_url
        self._campaigns = CampaignStore(stores.engine)
        self._subscribers = SubscriberStore(stores.engine)
        self._bus = bus

    def show(self, token: str) -> str:
        """The page; the interest that the link names is ticked, and nothing is stored.

        Raises NotFound for a link that is not ours.
        """
        found = self._read(token)
        asked = (
            found.choices[found.link.number - 1 : found.link.number] if found.link.number else ()
        )
        return self._page(found, {*found.chosen, *asked})

    def store(self, token: str, interests: Sequence[str]) -> None:
        """Keep what was ticked, in place of what was before. Raises NotFound."""
        found = self._read(token)
        kept = [name for name in found.choices if name in interests]
        user_id = recipient_of(found.link.user_id)
        if not write_interests(self._engine, user_id, kept):
            raise NotFound("We do not know you any more.", "Your data has been erased.")
        self._tell(found.link, user_id, kept)

    def verify(self, token: str) -> Link:
        """What our own link says. Raises NotFound for any other."""
        return self._signer.verify(token, LinkKind.PREFERENCES)

    def _read(self, token: str) -> Preferences:
        link = self.verify(token)
        campaign: Campaign = self._campaigns.get(link.campaign_id).campaign
        if link.number > len(campaign.interests):
            raise NotFound("This link leads nowhere.")
        person = self._subscribers.get([recipient_of(link.user_id)])[0]
        return Preferences(link, campaign.interests, interests_of(person) if person else ())

    def _page(self, found: Preferences, ticked: set[str]) -> str:
        boxes = "".join(
            BOX.format(
                name=escape(name),
                label=escape(spoken(name)),
                checked=" checked" if name in ticked else "",
            )
            for name in found.choices
        )
        leave = Link(LinkKind.UNSUBSCRIBE, found.link.campaign_id, found.link.user_id)
        body = FORM.format(boxes=boxes, leave=escape(self._signer.url(self._root, leave)))
        return PAGE.format(title="Your preferences", body=body)

    def _tell(self, link: Link, user_id: str, interests: Sequence[str]) -> None:
        """One event for each answer; a reader does not wait for a bus that is down."""
        now = datetime.now(UTC).isoformat()
        shard = user_bucket(user_id, self._bus.shards)
        events = [
            {
                "type": "preference",
                "user_id": user_id,
                "campaign_id": link.campaign_id,
                "delivery_id": link.user_id,
                "timestamp": now,
                "attributes": {"category": name},
            }
            for name in interests
        ]
        try:
            self._bus.append([(shard, json.dumps(event).encode()) for event in events])
        except RecoError as error:
            log.warning("events are lost", type="preference", why=str(error))


def router(page: PreferencePage) -> APIRouter:
    """Routes of the preference page."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/p/{token}")
    async def show(token: str) -> Response:
        return HTMLResponse(await asyncio.to_thread(page.show, token), headers=UNSEEN)

    @routes.post("/p/{token}")
    async def store(token: str, request: Request) -> Response:
        page.verify(token)  # before a stranger's body is read
        form = await read_form(request, MOST_BYTES)
        await asyncio.to_thread(page.store, token, form.get("interest", []))
        done = PAGE.format(title="Saved", body="<p>Your next mail will show it.</p>")
        return HTMLResponse(done, headers=UNSEEN)

    return routes
