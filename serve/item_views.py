"""Catalogue rows as readers see them: title, price in their currency, picture, link, reason."""

from functools import lru_cache
from urllib.parse import quote, urljoin

from reco.campaigns.campaign import Campaign
from reco.catalogue import Catalogue
from render.formats import format_price
from render.images import image_name
from render.links import Link, LinkKind, LinkSigner, with_utm
from render.reasons import reason_sentence
from render.views import ItemView, one_line


class ItemViews:
    """Views of one campaign; what all its readers see of a row is made once."""

    def __init__(
        self, catalogue: Catalogue, campaign: Campaign, public_url: str, links: LinkSigner
    ) -> None:
        self._catalogue = catalogue
        self._campaign = campaign
        self._links = links
        self._root = public_url.rstrip("/") + "/"

    def of(
        self, row: int, reason: int, gap_days: int = 0, bought: int = -1, url: str = ""
    ) -> ItemView:
        """The view of a row, with the reason to show it and the link to follow (untracked: "").

        `bought` is the row of what they took that it goes with.
        """
        view, with_it = self._bare(row), self._bare(bought).title if bought >= 0 else ""
        sentence = reason_sentence(reason, view.category, gap_days or None, with_it)
        return view.shown(sentence, url or view.url)

    # Of all campaigns together: a view is a kilobyte, and a replica has up to 16 of them open.
    @lru_cache(maxsize=20_000)  # noqa: B019
    def _bare(self, row: int) -> ItemView:
        item = self._catalogue.frame.row(row, named=True)
        item_id, category = item["item_id"], item["category"] or ""
        campaign, picture = self._campaign, f"assets/categories/{image_name(category)}"
        price = format_price(item["price"], item["currency"] or campaign.currency, campaign.locale)
        return ItemView(
            item_id=item_id,
            title=one_line(item["title"] or f"{category} {item_id}"),
            price=price,
            image_url=urljoin(self._root, item["image_url"] or picture),
            url=self.link(row),
            category=one_line(category),
            live_url=self._live_url(item_id),
        )

    def _live_url(self, item_id: str) -> str:
        """Of the picture drawn when the mail is opened; it names the item and nobody."""
        if "@" in item_id or len(item_id.encode()) > 255:  # cannot stand in a link
            return ""
        return self._links.url(self._root, Link(LinkKind.IMAGE, self._campaign.id, item_id))

    def link(self, row: int) -> str:
        """Where the item is sold, with the campaign's utm parameters."""
        return destination(self._catalogue, row, self._root, self._campaign)


def destination(catalogue: Catalogue, row: int, root: str, campaign: Campaign) -> str:
    """Address of an item's page; a shop that gave none gets the page of the gateway itself."""
    url = catalogue.frame["url"][row]
    if not url:
        url = f"items/{quote(str(catalogue.item_ids[row]), safe='')}"
    return with_utm(urljoin(root, url), {**campaign.utm, "utm_campaign": campaign.id})
