"""Who a campaign is for, page by page: never the whole audience in memory."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import polars as pl

from reco.campaigns.campaign import Campaign
from reco.campaigns.conditions import matches
from reco.campaigns.fields import ATTRIBUTE, PROFILE
from reco.campaigns.ledger import Ledger
from reco.experiments.assignment import Experiment, Holdout, assign
from reco.subscribers.store import Subscriber, SubscriberStore

PAGE: Final = 2_000
SAME_ADDRESS: Final = "same_address"


class Addresses:
    """Tells of several subscribers with one address all but the first: one mail is enough.

    `shared` has the address of everybody who shares one, `taken` those who have a mail already.
    """

    def __init__(self, shared: Mapping[str, str], taken: Iterable[str] = ()) -> None:
        self._shared = shared
        self._first = {shared[user]: user for user in taken}

    def others(self, page: Sequence[str]) -> list[str]:
        """Those of the page whose address had its mail. Pages must come in the same order."""
        sharing = [user for user in page if user in self._shared]
        return [u for u in sharing if self._first.setdefault(self._shared[u], u) != u]


def pages(campaign: Campaign, store: SubscriberStore) -> Iterator[list[str]]:
    """User ids of the audience. Ids that the campaign names but nobody has are kept: they end as
    suppressed(unknown), so that no name is lost without a trace.
    """
    named = campaign.audience.user_ids()
    every = _all(store) if named is None else _cut(named)
    for page in every:
        kept = matching(campaign, store, page) if campaign.audience.where else page
        if kept:
            yield kept


def assigned_arms(campaign: Campaign, user_ids: Sequence[str]) -> list[str]:
    """Arm of each subscriber, or assignment.HOLDOUT or OUTSIDE. Raises ConfigError."""
    experiment = Experiment(campaign.arm_salt, campaign.weights, campaign.share)
    holdout = Holdout(campaign.holdout_salt, campaign.holdout)
    return assign(experiment, user_ids, holdout=holdout)


def enqueue(campaign: Campaign, store: SubscriberStore, ledger: Ledger) -> int:
    """Put the audience into the ledger, each with an arm; gives its size.

    Whose address stands there already is suppressed(same_address).
    """
    size = 0
    shared = store.shared_addresses()
    known = ledger.known(campaign.id, list(shared))
    addresses = Addresses(shared, [user for user in known if known[user] != SAME_ADDRESS])
    for page in pages(campaign, store):
        rows = dict(zip(page, assigned_arms(campaign, page), strict=True))
        others = [(user, rows[user]) for user in addresses.others(page)]
        ledger.exclude(campaign.id, others, SAME_ADDRESS)
        ledger.enqueue(campaign.id, list(rows.items()))
        size += len(page)
    return size


def _all(store: SubscriberStore) -> Iterator[list[str]]:
    after = ""
    while page := store.ids(after, PAGE):
        yield page
        after = page[-1]


def _cut(named: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(named), PAGE):
        yield named[start : start + PAGE]


def matching(campaign: Campaign, store: SubscriberStore, page: Sequence[str]) -> list[str]:
    """Those of the page whose profiles meet the conditions of the audience."""
    people = store.get(page)
    wanted = campaign.audience.where
    columns = {name: [profile_value(person, name) for person in people] for name in wanted}
    frame = pl.DataFrame([pl.Series(name, v, strict=False) for name, v in columns.items()])
    return [user for user, fits in zip(page, matches(frame, wanted), strict=True) if fits]


def profile_value(person: Subscriber | None, name: str) -> object:
    """A field of a profile by the name that conditions use; `attributes.x` is an attribute."""
    if person is None:
        return None
    if name.startswith(ATTRIBUTE):
        return person.attributes.get(name.removeprefix(ATTRIBUTE))
    return getattr(person, name) if name in PROFILE else None
