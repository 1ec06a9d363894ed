"""Everything that the mails of one campaign share, made once: template, headers, item views."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from reco.campaigns.campaign import Campaign
from reco.catalogue import Catalogue
from reco.models.slates import Reason
from render.compile import compile_template
from render.links import Link, LinkKind, LinkSigner
from render.message import Assembler, Sender, message_id
from render.renderer import Renderer
from render.sources import Written
from render.template import CompiledTemplate, Part
from render.views import ItemView, RecipientView, Rendered
from serve.chunks import Recipients
from serve.item_views import ItemViews
from serve.segments import campaign_of

POPULAR_SHOWN = 4  # items in the block of recent favourites


@dataclass(frozen=True, slots=True)
class Mail:
    """One finished mail."""

    message_id: str
    message: bytes
    rendered: Rendered


class Workshop:
    """Makes the mails of one campaign. Raises NotFound or TemplateError when it cannot."""

    def __init__(
        self, spec: bytes, catalogue: Catalogue, signer: LinkSigner, key: bytes, public_url: str
    ) -> None:
        campaign = campaign_of(spec)
        self._campaign = campaign
        self._signer = signer
        self._key = key
        self._root = public_url
        self._domain = campaign.from_email.rpartition("@")[2]
        self._items = ItemViews(catalogue, campaign, public_url)
        self._catalogue = catalogue
        self._renderer = Renderer(
            _with_subject(compile_template(campaign.template), campaign.subject),
            {"postal_address": campaign.postal_address, "campaign_id": campaign.id},
        )
        self._assembler = Assembler(_sender(campaign))

    def popular(self, keys: npt.NDArray[np.uint64]) -> list[ItemView]:
        """Views of recent favourites, the same for everybody, with untracked links."""
        rows = self._catalogue.index.rows(keys)
        return [self._items.of(int(row), Reason.NONE) for row in rows[rows >= 0][:POPULAR_SHOWN]]

    def mail(
        self,
        recipients: Recipients,
        i: int,
        rows: npt.NDArray[np.int32],
        reasons: npt.NDArray[np.uint8],
        now: datetime,
        popular: Sequence[ItemView],
    ) -> Mail:
        """The mail of recipient i, who is shown these catalogue rows.

        Raises TemplateError, ConfigError or InputError for what only this mail has wrong.
        """
        delivery, tracked = recipients.deliveries[i], recipients.tracked[i]
        person = RecipientView(
            user_id=recipients.user_ids[i],
            email=recipients.emails[i],
            first_name=recipients.first_names[i],
            language=recipients.languages[i] or self._campaign.locale.partition("_")[0],
            segment=recipients.segments[i],
        )
        unsubscribe = self._link(LinkKind.UNSUBSCRIBE, delivery)
        context = {
            "unsubscribe_url": unsubscribe,
            "open_url": self._link(LinkKind.OPEN, delivery) if tracked else "",
            "popular": popular,
            "sent_at": now,
        }
        rendered = self._renderer.render(
            person, self._views(delivery, rows, reasons, tracked), context
        )
        mid = message_id(self._key, self._campaign.id, delivery, self._domain)
        message = self._assembler.assemble(person, rendered, mid, unsubscribe, now)
        return Mail(mid, message, rendered)

    def _views(
        self,
        delivery: str,
        rows: npt.NDArray[np.int32],
        reasons: npt.NDArray[np.uint8],
        tracked: bool,
    ) -> list[ItemView]:
        """Views in the order of the slate; a click is only followed where that was agreed to."""
        views = [
            self._items.of(row, reason)
            for row, reason in zip(rows.tolist(), reasons.tolist(), strict=True)
            if row >= 0
        ]
        if not tracked:
            return views
        return [
            view.because(view.reason, self._link(LinkKind.CLICK, delivery, slot))
            for slot, view in enumerate(views)
        ]

    def _link(self, kind: LinkKind, delivery: str, number: int = 0) -> str:
        return self._signer.url(self._root, Link(kind, self._campaign.id, delivery, number))


def _with_subject(template: CompiledTemplate, subject: str | None) -> CompiledTemplate:
    if subject is None:
        return template
    written = Written(subject, (("subject of the campaign", 1),))
    return replace(template, subject=Part(subject, written))


def _sender(campaign: Campaign) -> Sender:
    return Sender(
        from_name=campaign.from_name,
        from_email=campaign.from_email,
        reply_to=campaign.reply_to or "",
        list_id=f"<{campaign.list_header}>",
        feedback_id=f"{campaign.id}:reco",
    )
