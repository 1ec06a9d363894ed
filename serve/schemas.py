"""What the HTTP API takes and gives; OpenAPI is made from these. A misspelt key is an error."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from reco.campaigns.campaign import Campaign
from reco.campaigns.showing import Rules
from reco.campaigns.typed import Id, Time

# No control character: PostgreSQL keeps no NUL, and logs keep their lines.
UserId = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,100}$")]


class Strict(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RecommendRequest(Strict):
    """Items for some subscribers."""

    users: tuple[UserId, ...] = Field(min_length=1, max_length=512)
    k: int = Field(20, ge=1, le=100, description="items of each")
    rules: Rules = Rules()
    as_of: Time | None = Field(None, description="only what happened before counts")


class Pick(Strict):
    """One item; rank counts from 1, score is a probability."""

    item_id: str
    title: str
    rank: int
    score: float
    reason: str
    rung: str = Field(description="step of the fallback ladder that it came from")


class UserPicks(Strict):
    """The slate of one subscriber."""

    user_id: str
    picks: tuple[Pick, ...]


class RecommendResponse(Strict):
    """Slates in the order of the request."""

    users: tuple[UserPicks, ...]
    model: str = Field(description='version; "" when none is promoted')
    fallback: str = Field(description='why there are no model picks; "" when there are')
    took_ms: dict[str, float]


class OfCampaign(Strict):
    """A mail of a campaign: of one that is stored, or of the configuration that is given."""

    campaign_id: Id | None = None
    campaign: Campaign | None = None
    user_id: UserId

    @model_validator(mode="after")
    def _one_of_them(self) -> "OfCampaign":
        if (self.campaign_id is None) == (self.campaign is None):
            raise ValueError("give either campaign_id or campaign")
        return self


class PreviewRequest(OfCampaign):
    """The mail that a subscriber would get; nothing is sent or counted."""

    arm: str | None = Field(None, description="default: the one that the subscriber is in")


class PreviewResponse(Strict):
    """One mail and the decisions behind it."""

    subject: str
    preheader: str
    html: str
    text: str
    headers: dict[str, str]
    arm: str
    picks: tuple[Pick, ...]
    removed: dict[str, tuple[str, ...]] = Field(description="item ids that each rule took")
    model: str
    fallback: str
    took_ms: dict[str, float]


class SendRequest(OfCampaign):
    """One mail now. A campaign writes once to a subscriber, or once for each key."""

    key: Key | None = Field(None, description="idempotency key: the event that asks for the mail")


class SendResponse(Strict):
    """Where the delivery is; asking again gives the same."""

    campaign_id: str
    user_id: str
    state: str
    message_id: str | None
    reply: str | None = Field(description="of the mail server, or why no mail was sent")


class CampaignStatus(Strict):
    """A stored campaign and what the ledger counts."""

    campaign_id: str
    state: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    note: str | None
    deliveries: dict[str, int]


class Problem(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    todo: str = ""
