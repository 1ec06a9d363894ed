"""What the readers of mails do: follow a link, open a mail, unsubscribe.

A token names campaign, delivery and link number; where a link leads is looked up in the ledger, so
nobody can bend it. What happened goes to a Redis stream, from which it becomes events.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from html import escape
from typing import Any, Final

import redis
import structlog
from sqlalchemy import select

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import recipient_of
from reco.campaigns.store import CampaignStore
from reco.database import DELIVERIES
from reco.errors import NotFound
from reco.outcomes.bots import TRAP_SLOT
from reco.subscribers.store import SubscriberStore
from reco.subscribers.suppression import SuppressionList, SuppressionReason
from reco.tables import item_keys
from render.images import draw_category, image_name
from render.links import Link, LinkKind, LinkSigner
from serve.item_views import destination
from serve.stores import Stores

log = structlog.get_logger()

EVENT_STREAM: Final = "reco:events"
STREAM_LENGTH: Final = 1_000_000  # about; older ones are dropped when nobody takes them
GONE: Final = "the mail that it stood in is not known here, or was only a preview"


class Readers:
    """Everything behind the public links. Blocking; call it in a thread."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._signer = LinkSigner(stores.services.link_key)
        self._campaigns = CampaignStore(stores.engine)
        self._subscribers = SubscriberStore(stores.engine)
        self._suppressions = SuppressionList(stores.engine, stores.services.link_key)
        self._campaign = lru_cache(maxsize=256)(self._read_campaign)
        categories = stores.catalogue.category_names
        self._pictures = {image_name(category): category for category in ("", *categories)}
        self._drawn = lru_cache(maxsize=1024)(draw_category)

    def click(self, token: str, visit: Mapping[str, str]) -> str:
        """Where a link leads. Raises NotFound.

        A click on the hidden link leads to the front page: only a program follows it.
        """
        link = self._signer.verify(token, LinkKind.CLICK)
        if link.number == TRAP_SLOT:
            self._follow(link, "click", visit=visit)
            return self._stores.services.public_url
        items = self._items(link)
        if link.number >= len(items):
            raise NotFound("This link leads nowhere.", GONE)
        item_id = items[link.number]
        row = int(self._stores.catalogue.index.rows(item_keys([item_id]))[0])
        if row < 0:
            raise NotFound("This item is no longer sold.")
        self._follow(link, "click", item_id, visit)
        root = self._stores.services.public_url.rstrip("/") + "/"
        return destination(self._stores.catalogue, row, root, self._campaign(link.campaign_id))

    def opened(self, token: str, visit: Mapping[str, str]) -> None:
        """A mail was opened, or its pictures were fetched. Raises NotFound."""
        self._follow(self._signer.verify(token, LinkKind.OPEN), "open", visit=visit)

    def subscription(self, token: str) -> Link:
        """The mail behind an unsubscribe link; nothing changes. Raises NotFound."""
        return self._signer.verify(token, LinkKind.UNSUBSCRIBE)

    def unsubscribe(self, token: str) -> None:
        """No more mail to the address behind a link; those that wait are held back too.

        Raises NotFound for a link that is not ours.
        """
        link = self.subscription(token)
        person = self._subscribers.get([recipient_of(link.user_id)])[0]
        if person is not None and person.email:
            self._suppressions.add([person.email], SuppressionReason.UNSUBSCRIBE, "one_click")
        self._note(link, "unsubscribe")

    def picture(self, name: str) -> bytes:
        """PNG of a category. Raises NotFound."""
        if name not in self._pictures:
            raise NotFound(f"There is no picture {name}.")
        return self._drawn(self._pictures[name])

    def item_page(self, item_id: str) -> str:
        """A plain page for an item of a shop that gave no address. Raises NotFound."""
        row = int(self._stores.catalogue.index.rows(item_keys([item_id]))[0])
        if row < 0:
            raise NotFound("This item is not known.")
        item = self._stores.catalogue.frame.row(row, named=True)
        return escape(item["title"] or item["category"] or item_id)

    def _items(self, link: Link) -> list[str]:
        c = DELIVERIES.c
        mine = (c.campaign_id == link.campaign_id) & (c.user_id == link.user_id)
        query = select(c["items"]).where(mine)
        with self._stores.engine.connect() as connection:
            return connection.execute(query).scalar() or []

    def _follow(
        self, link: Link, kind: str, item_id: str = "", visit: Mapping[str, str] | None = None
    ) -> None:
        """Note it for who agrees to that today, whatever they did when the mail was sent."""
        person = self._subscribers.get([recipient_of(link.user_id)])[0]
        if person is not None and person.consent_tracking:
            self._note(link, kind, item_id, visit)

    def _note(
        self, link: Link, kind: str, item_id: str = "", visit: Mapping[str, str] | None = None
    ) -> None:
        """Append to the stream; a reader does not wait for a store that is down."""
        fields: dict[Any, Any] = {
            "type": kind,
            "user_id": recipient_of(link.user_id),
            "campaign_id": link.campaign_id,
            "delivery_id": link.user_id,
            "item_id": item_id,
            "slot": str(link.number),
            "timestamp": datetime.now(UTC).isoformat(),
            **(visit or {}),
        }
        try:
            self._stores.redis.xadd(EVENT_STREAM, fields, maxlen=STREAM_LENGTH, approximate=True)
        except redis.RedisError as error:
            log.warning("an event is lost", type=kind, why=str(error))

    def _read_campaign(self, campaign_id: str) -> Campaign:
        return self._campaigns.get(campaign_id).campaign
