"""What travels between the deployments: chunks of 1 to 512 recipients, as arrays and bytes.

Gateway or sender -> Request -> Features -> FeatureChunk -> Scorer -> ScoredChunk -> Rules ->
PickedChunk -> Renderer -> Assembled. Everything is frozen and cheap to pickle.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reco.campaigns.campaign import Campaign
from reco.campaigns.showing import Rules
from reco.campaigns.variants import Chosen
from reco.experiments.assignment import HOLDOUT, OUTSIDE
from reco.features.history import Histories
from reco.models.slates import Slates
from reco.subscribers.refusals import Refusals
from render.renderer import Rendered
from serve.rows import lines

LEAST_CANDIDATES: Final = 20  # below that the rules soon run out
MOST_CANDIDATES: Final = 48  # the bit mask of the frequency caps holds 52


class Mode(StrEnum):
    """What a chunk is for."""

    SEND = "send"  # showings are reserved, whoever may not be written to is withheld
    CHECK = "check"  # the same mails, but nothing is reserved: preview and preflight
    RECOMMEND = "recommend"  # slates only, for anyone


@dataclass(frozen=True, slots=True)
class Choice:
    """What decides the items of a mail; replicas keep what they derive from it, so it is hashable.

    by         id under which showings are counted: the campaign's
    editorial  item ids, best first; empty means what is popular now
    static     arms, and who stays outside of them, that get the editorial slate, not the model's
    explore    arms that get a draw among the model's candidates
    as_of      freezes clock and features, for a replay
    """

    by: str
    picks: int
    rules: Rules = field(default_factory=Rules)
    editorial: tuple[str, ...] = ()
    static: frozenset[str] = frozenset()
    explore: frozenset[str] = frozenset()
    as_of: datetime | None = None
    live: bool = False

    @classmethod
    def of(cls, campaign: Campaign) -> "Choice":
        """The part of a campaign that decides the items."""
        return cls(
            by=campaign.id,
            picks=campaign.picks,
            rules=campaign.rules,
            editorial=() if campaign.editorial == "popular" else tuple(campaign.editorial),
            static=frozenset(arm.name for arm in campaign.arms if arm.slate == "editorial")
            | {HOLDOUT, OUTSIDE},
            explore=frozenset(arm.name for arm in campaign.arms if arm.slate == "explore"),
            as_of=campaign.as_of,
            live=campaign.live,
        )


def candidates(choice: Choice, mode: Mode) -> int:
    """How many candidates a recipient needs, so that the rules may remove most of them."""
    if mode is Mode.RECOMMEND:
        return choice.picks + LEAST_CANDIDATES
    return min(max(LEAST_CANDIDATES, 4 * choice.picks), MOST_CANDIDATES)


@dataclass(frozen=True, slots=True)
class Request:
    """A chunk of recipients, each with the arm of the experiment that they are in.

    deliveries  ids in the ledger: the user id, with a key behind it where one gets several mails
    campaign    JSON of the Campaign; empty where no mail is made (Mode.RECOMMEND)
    """

    choice: Choice
    deliveries: list[str]
    arms: list[str]
    mode: Mode = Mode.SEND
    campaign: bytes = b""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A recipient for whom no mail is made, and why."""

    delivery: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recipient whose mail is made later, when the time `until` (UTC) has come."""

    delivery: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who is written to, as columns of n; "" stands for what is not known.

    tracked    who agreed to links and pixels that tell what they did
    interests  categories that they asked for on the preference page
    refused    what those at these places do not want to be shown
    timezones  where they live (IANA); empty where no moment is asked for
    """

    deliveries: list[str]
    user_ids: list[str]
    arms: list[str]
    emails: list[str]
    first_names: list[str]
    languages: list[str]
    tracked: list[bool]
    segments: list[str]
    interests: list[tuple[str, ...]]
    timezones: list[str] = field(default_factory=list)
    refused: dict[int, Refusals] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True, slots=True)
class FeatureChunk:
    """What is known about the n recipients of a request who may be written to.

    personal   bool [n]: who gets picks of their own (consent to profiling, arm of the model)
    histories  of those n; empty ones where nothing may be known
    fresh      precomputed slates [n, w] of the model `fresh_version`; empty where there are none
    now        the clock of this chunk, UTC
    fallback   why histories or fresh slates could not be read, else ""
    waiting    who is in their quiet hours
    """

    request: Request
    recipients: Recipients
    withheld: list[Withheld]
    personal: npt.NDArray[np.bool_]
    histories: Histories
    fresh: Slates
    now: datetime
    fresh_version: str = ""
    fallback: str = ""
    waiting: list[Waiting] = field(default_factory=list)
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """The candidates [n, w] of a chunk, best first; empty where the model knows nothing.

    novel     whether items bought before are left out (campaign, or the kind of shop); None unknown
    fallback  why there are no model picks, else ""
    """

    slates: Slates
    model_version: str
    novel: bool | None
    fallback: str = ""
    took_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PickedChunk:
    """The slates [n, picks] that are shown; no place is empty while anything is in stock.

    popular  uint64 [p] keys of recent favourites, for the content block that is the same for all
    chances  float64 [n]: of each item shown to be in its place, where it was drawn; else 0
    removed  per rule the item ids that it took, in a chunk of one (Mode.CHECK): why, for people
    candidates, fates  slates [n, w] before the rules, best first, and the rules.fates.Fate of each
    """

    slates: Slates
    candidates: Slates
    fates: npt.NDArray[np.uint8]
    popular: npt.NDArray[np.uint64]
    chances: npt.NDArray[np.float64]
    model_version: str
    features_version: str = ""
    fallback: str = ""
    removed: dict[str, list[str]] = field(default_factory=dict)
    took_ms: dict[str, float] = field(default_factory=dict)


# Columns of Assembled with a place for each mail, or empty.
PER_MAIL: Final = (
    "deliveries", "arms", "addresses", "message_ids", "messages", "item_ids", "titles",
    "rendered", "lacking", "copy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assembled:
    """Finished mails of m <= n recipients, and who got none.

    messages   whole messages with CRLF line ends, as they go behind DATA
    slates     what each mail shows [m, picks]; item_ids and titles the same in words
               (titles in Mode.CHECK only, and so are those of what they bought, "" for none)
    broken     recipients whose mail could not be rendered, and why
    waiting    recipients whose mail is made later
    rendered   subject, HTML and text of each mail in Mode.CHECK, else empty
    lacking    variables without a value in each of those mails
    took_ms    milliseconds of the chunk in each stage
    copy       everything that was drawn for each mail: arms of its copy, items of its places
    records    decision records of the mails (campaigns.decisions), where they are for sending
    fates      of the candidates of each mail (rules.fates) [m, w]
    """

    deliveries: list[str]
    arms: list[str]
    addresses: list[str]
    message_ids: list[str]
    messages: list[bytes]
    slates: Slates
    item_ids: list[list[str]]
    titles: list[list[str]]
    withheld: list[Withheld]
    broken: list[Withheld]
    model_version: str
    fallback: str
    took_ms: dict[str, float]
    bought: list[list[str]] = field(default_factory=list)
    rendered: list[Rendered] = field(default_factory=list)
    lacking: list[list[str]] = field(default_factory=list)
    removed: dict[str, list[str]] = field(default_factory=dict)
    copy: list[tuple[Chosen, ...]] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    records: pa.RecordBatch | None = None
    fates: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 0), np.uint8))

    def __len__(self) -> int:
        return len(self.deliveries)

    def part(self, places: Sequence[int]) -> "Assembled":
        """The mails at these places; it keeps none of the others in memory."""
        columns = {name: getattr(self, name) for name in PER_MAIL}
        cut: dict[str, Any] = {
            name: [column[i] for i in places] for name, column in columns.items() if column
        }
        at = np.array(places, np.intp)
        slates = lines(self.slates, places)
        records = None if self.records is None else self.records.take(pa.array(at))
        return replace(self, slates=slates, records=records, fates=self.fates[at], **cut)


@dataclass(frozen=True, slots=True)
class Recommended:
    """Slates in words: one list of picks a recipient."""

    user_ids: list[str]
    slates: Slates
    item_ids: list[list[str]]
    titles: list[list[str]]
    model_version: str
    fallback: str
    took_ms: dict[str, float]
    bought: list[list[str]] = field(default_factory=list)  # titles of what picks go with, or ""
