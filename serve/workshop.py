"""Everything that the mails of one campaign share, made once: template, headers, item views."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np
import numpy.typing as npt

from reco.campaigns.variants import Chosen
from reco.catalogue import Catalogue
from reco.embedded import Services
from reco.mac import Mac
from reco.models.slates import Reason
from render.images import spoken
from render.links import Link, LinkKind, LinkSigner
from render.live_images import COUNTDOWN
from render.message import Assembler, message_id
from render.renderer import Renderer
from render.views import Interest, ItemView, RecipientView, Rendered, one_line
from serve.chunks import Recipients
from serve.item_views import ItemViews
from serve.letterhead import dkim_of, domain_of, renderer_of, sender_of
from serve.segments import campaign_of

POPULAR_SHOWN = 4  # items in the block of recent favourites


@dataclass(frozen=True, slots=True)
class Mail:
    """One finished mail."""

    message_id: str
    message: bytes
    rendered: Rendered
    copy: tuple[Chosen, ...]  # which of the campaign's variants it has


@dataclass(frozen=True, slots=True)
class Shown:
    """What one recipient is shown.

    rows     int32 [k]  catalogue rows, -1 for an empty place
    reasons  uint8 [k]  models.slates.Reason
    gaps     int64 [k]  usual days between two purchases, 0 unknown
    bought   int32 [k]  rows of what they took that the picks go with, -1 none
    curious  whether we ask for their interests, because we know little about them
    """

    rows: npt.NDArray[np.int32]
    reasons: npt.NDArray[np.uint8]
    gaps: npt.NDArray[np.int64]
    bought: npt.NDArray[np.int32]
    curious: bool


class Workshop:
    """Makes the mails of one campaign. Raises NotFound or TemplateError when it cannot."""

    def __init__(self, spec: bytes, catalogue: Catalogue, services: Services) -> None:
        campaign = campaign_of(spec)
        self._campaign = campaign
        self._links = LinkSigner(services.link_key)
        self._mac = Mac(services.link_key)
        self._root = services.public_url
        self._domain = domain_of(campaign)
        self._items = ItemViews(catalogue, campaign, services.public_url, self._links)
        self._catalogue = catalogue
        self._renderers: dict[tuple[str, ...], Renderer] = {(): renderer_of(campaign)}
        self._assembler = Assembler(sender_of(campaign))
        self._dkim = dkim_of(campaign, services)
        clock = Link(LinkKind.IMAGE, campaign.id, "", COUNTDOWN)
        self._countdown = self._links.url(self._root, clock) if campaign.offer_ends_at else ""

    @property
    def template_version(self) -> str:
        """Hash of the files of the template, as they were when it was compiled."""
        return self._renderers[()].template.version

    def popular(self, keys: npt.NDArray[np.uint64]) -> list[ItemView]:
        """Views of recent favourites, the same for everybody, with untracked links.

        A mail shows the first POPULAR_SHOWN that are not among its picks.
        """
        rows = self._catalogue.index.rows(keys)
        return [self._items.of(int(row), int(Reason.NONE)) for row in rows[rows >= 0]]

    def mail(
        self,
        recipients: Recipients,
        i: int,
        shown: Shown,
        now: datetime,
        popular: Sequence[ItemView],
    ) -> Mail:
        """The mail of recipient i.

        Raises TemplateError, ConfigError or InputError for what only this mail has wrong.
        """
        delivery, tracked = recipients.deliveries[i], recipients.tracked[i]
        person = self._person(recipients, i)
        unsubscribe = self._link(LinkKind.UNSUBSCRIBE, delivery)
        views = self._views(delivery, shown, tracked)
        taken = {view.item_id for view in views}
        if i in recipients.refused:  # the block is the same for all, and may show what they refuse
            popular = ()
        others = (view for view in popular if view.item_id not in taken)
        context = {
            "unsubscribe_url": unsubscribe,
            "preferences_url": self._link(LinkKind.PREFERENCES, delivery),
            "countdown_url": self._countdown,
            "interests": self._interests(delivery) if shown.curious else (),
            "open_url": self._link(LinkKind.OPEN, delivery) if tracked else "",
            "popular": list(islice(others, POPULAR_SHOWN)),
            "sent_at": now,
        }
        chosen = self._chosen(person)
        rendered = self._renderer(chosen).render(person, views, context)
        mid = message_id(self._mac, self._campaign.id, delivery, self._domain)
        message = self._assembler.assemble(person, rendered, mid, unsubscribe, now)
        signed = self._dkim.sign(message) if self._dkim else message
        return Mail(mid, signed, rendered, chosen)

    def lacking(self, recipients: Recipients, i: int) -> list[str]:
        """Variables of the template that the mail of recipient i has no value for."""
        person = self._person(recipients, i)
        return self._renderer(self._chosen(person)).lacking(person)

    def _person(self, recipients: Recipients, i: int) -> RecipientView:
        return RecipientView(
            user_id=recipients.user_ids[i],
            email=recipients.emails[i],
            first_name=one_line(recipients.first_names[i]),
            language=recipients.languages[i] or self._campaign.locale.partition("_")[0],
            segment=recipients.segments[i],
        )

    def _chosen(self, person: RecipientView) -> tuple[Chosen, ...]:
        """The copy of a recipient; empty where the campaign tries none."""
        variants = self._campaign.variants
        if variants is None:
            return ()
        return variants.choose(self._campaign.id, person.user_id, person.segment)

    def _renderer(self, chosen: tuple[Chosen, ...]) -> Renderer:
        """The renderer of one combination of copy; compiled when it is first drawn."""
        arms = tuple(one.arm for one in chosen)
        if arms not in self._renderers:
            assert self._campaign.variants  # nothing is chosen without them
            texts = self._campaign.variants.texts(chosen)
            self._renderers[arms] = renderer_of(self._campaign, texts)
        return self._renderers[arms]

    def _views(self, delivery: str, shown: Shown, tracked: bool) -> list[ItemView]:
        """Views in the order of the slate; a click is only followed where that was agreed to."""
        numbers = zip(
            shown.reasons.tolist(), shown.gaps.tolist(), shown.bought.tolist(), strict=True
        )
        places = zip(shown.rows.tolist(), numbers, strict=True)
        filled = [place for place in places if place[0] >= 0]
        return [
            self._items.of(row, *why, self._link(LinkKind.CLICK, delivery, slot) if tracked else "")
            for slot, (row, why) in enumerate(filled)
        ]

    def _interests(self, delivery: str) -> tuple[Interest, ...]:
        """A link for each category that a reader may ask for: the preference page confirms it."""
        return tuple(
            Interest(spoken(category), self._link(LinkKind.PREFERENCES, delivery, number))
            for number, category in enumerate(self._campaign.interests, 1)
        )

    def _link(self, kind: LinkKind, delivery: str, number: int = 0) -> str:
        return self._links.url(self._root, Link(kind, self._campaign.id, delivery, number))
