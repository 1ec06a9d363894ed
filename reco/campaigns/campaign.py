"""What a campaign is: the YAML that a marketer writes, checked as a whole before anything starts.

Takes configs/campaigns/*.yaml or the JSON of POST /v1/campaigns, gives a frozen Campaign.
"""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
from babel import Locale, UnknownLocaleError
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from reco.campaigns.conditions import Condition, matches
from reco.campaigns.fields import of_profile, of_profile_or_feature
from reco.campaigns.showing import Rules
from reco.campaigns.timing import MessageCap, QuietHours, Trigger, WarmUp, Window
from reco.campaigns.typed import Address, Id, Line, Rate, Share, Strict, Time
from reco.campaigns.variants import Variants
from reco.campaigns.yaml_config import read_config
from reco.errors import ConfigError

OTHER = "other"  # the segment of whoever no rule names

Slate = Literal["model", "editorial", "explore"]


class Arm(Strict):
    """One arm of the experiment."""

    name: Id
    weight: float = Field(gt=0, description="share of the audience, relative to the other arms")
    slate: Slate = Field(
        "model", description="who picks the items; explore: a draw among the model's candidates"
    )


class Segment(Strict):
    """A segment and who belongs to it; the first one that fits is `user.segment`."""

    name: Id
    when: Annotated[dict[str, Condition], AfterValidator(of_profile_or_feature)] = Field(
        min_length=1
    )


class Audience(Strict):
    """Who is written to, among those with an address and consent."""

    users: tuple[str, ...] | None = Field(None, description="only these user ids")
    file: Path | None = Field(None, description="only the user ids in this file, one a line")
    where: Annotated[dict[str, Condition], AfterValidator(of_profile)] = Field(
        {}, description="only profiles that meet these conditions"
    )

    @field_validator("file")
    @classmethod
    def _beside_the_campaign(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is None:
            return None
        folder: Path = (info.context or {}).get("folder", Path())
        path = (folder / file).resolve()
        if not path.is_file():
            raise ValueError(f"{path} is not a file")
        return path

    def user_ids(self) -> list[str] | None:
        """The ids that `users` and `file` name, each once; None when everyone is meant.

        Raises ConfigError when the file cannot be read.
        """
        if self.users is None and self.file is None:
            return None
        try:
            lines = self.file.read_text(encoding="utf-8-sig").splitlines() if self.file else []
        except (OSError, UnicodeDecodeError) as error:
            what = f"The audience file {self.file} cannot be read."
            raise ConfigError(what, str(error), "It is UTF-8 text, one user id a line.") from error
        named = [*(self.users or ()), *(line.strip() for line in lines)]
        return list(dict.fromkeys(user_id for user_id in named if user_id))


class Limits(Strict):
    """Preflight: `reco campaign check` refuses a campaign beyond one of these; sending does not."""

    fallback_share: Share = Field(0.5, description="personal mails below the model's own rungs")
    invalid_share: Share = Field(0.02, description="addresses that no server would take")
    size_kb: float = Field(90, gt=0, description="of the HTML; Gmail clips at 102 KB")
    over_size_share: Share = 0.0
    missing_share: Share = Field(0.0, description="mails that lack a variable of the template")
    capped_share: Share = Field(0.5, description="recipients who had enough mails (message_cap)")
    complaint_share: Share = Field(
        0.003, description="of all mails of the last 30 days; Gmail's and Yahoo's own limit"
    )


class Campaign(Strict):
    """A campaign as configured; see configs/campaigns/every_key.yaml for each key."""

    id: Id
    template: str = Field(min_length=1, description="name of a built-in template, or its folder")
    subject: Line | None = Field(None, description="instead of the template's own")
    from_name: Line
    from_email: Address
    reply_to: Address | None = None
    list_id: Line | None = Field(None, description="List-Id; default <id>.<domain of from_email>")
    unsubscribe_email: Address | None = Field(
        None, description="takes unsubscriptions by mail; its messages go to POST /v1/inbound"
    )
    postal_address: Line
    variables: dict[str, Any] = Field({}, description="values for the template's own variables")
    variants: Variants | None = Field(None, description="copy that learns which arm is clicked")
    offer_ends_at: Time | None = Field(None, description="what the countdown picture counts to")
    interests: tuple[Line, ...] = Field(
        (), max_length=8, description="categories that new subscribers may ask for, in the mail"
    )
    picks: int = Field(3, ge=1, le=24, description="items shown in a mail")
    arms: tuple[Arm, ...] = Field((Arm(name="personal", weight=1.0),), min_length=1)
    salt: Line | None = Field(None, description="of the arms' hash; default the id")
    share: Share = Field(1.0, description="of the audience takes part; others get the editorial")
    holdout: Share = Field(0.0, description="of all subscribers, the same in every campaign: too")
    holdout_salt: Line = Field("holdout", description="changed when others shall be held out")
    editorial: Literal["popular"] | tuple[str, ...] = Field(
        "popular", description="item ids, best first, or what is popular now"
    )
    as_of: Time | None = Field(None, description="freezes clock and features, for a replay")
    audience: Audience = Audience()
    segments: tuple[Segment, ...] = ()
    rules: Rules = Rules()
    locale: str = "en_US"
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    utm: dict[Id, Line] = Field({"utm_source": "reco", "utm_medium": "email"})
    trigger: Trigger | None = Field(None, description="an event that starts each mail")
    window: Window = Window()
    live: bool = Field(False, description="score everyone now, even with a fresh precomputed slate")
    connections: int = Field(8, ge=1, le=256, description="SMTP connections of each sender")
    messages_per_connection: int = Field(100, ge=1)
    rate_per_s: float | None = Field(None, gt=0, description="mails/s to the relay, all senders")
    operator_rates: dict[Literal["gmail", "microsoft", "yahoo", "apple", "other"], Rate] = Field(
        {}, description="mails/s of each sender to all domains of a large receiver"
    )
    message_cap: MessageCap | None = Field(None, description="mails to one, from all campaigns")
    quiet_hours: QuietHours | None = Field(None, description="of the recipient's own day")
    warm_up: WarmUp | None = Field(None, description="daily quota of a new sending domain")
    limits: Limits = Limits()

    @field_validator("locale")
    @classmethod
    def _known_locale(cls, value: str) -> str:
        try:
            return str(Locale.parse(value))
        except (UnknownLocaleError, ValueError) as error:
            raise ValueError("expected a locale such as en_US or de_DE") from error

    @model_validator(mode="after")
    def _fits_together(self) -> "Campaign":
        for kind, names in (
            ("arms", [arm.name for arm in self.arms]),
            ("segments", [segment.name for segment in self.segments]),
        ):
            twice = sorted(name for name, n in Counter(names).items() if n > 1)
            if twice:
                raise ValueError(f"{kind} named twice: {', '.join(twice)}")
        if self.editorial != "popular" and len(set(self.editorial)) < self.picks:
            raise ValueError(f"editorial needs at least {self.picks} different items (picks)")
        caps = [cap for cap in ("frequency_cap", "category_cap") if getattr(self.rules, cap)]
        if caps and any(arm.slate == "explore" for arm in self.arms):
            unwanted = " and ".join(caps)
            raise ValueError(f"an arm that explores needs known chances: leave {unwanted} out")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Share of the audience of each arm; they add up to 1."""
        total = sum(arm.weight for arm in self.arms)
        return {arm.name: arm.weight / total for arm in self.arms}

    @property
    def arm_salt(self) -> str:
        """What the assignment hashes with the user id."""
        return self.salt or self.id

    @property
    def segment_fields(self) -> frozenset[str]:
        """Profile fields and features that the segments look at."""
        return frozenset(field for segment in self.segments for field in segment.when)

    @property
    def segment_names(self) -> frozenset[str]:
        """Segments that somebody may be in."""
        return frozenset((*(segment.name for segment in self.segments), OTHER))

    def now(self) -> datetime:
        """The campaign's clock: frozen at `as_of`, else the real one (UTC)."""
        return self.as_of or datetime.now(UTC)

    def segments_of(self, frame: pl.DataFrame) -> list[str]:
        """Segment of each row of a frame; it has, as far as known, the columns `segment_fields`."""
        names = pl.Series("segment", [None] * len(frame), dtype=pl.String)
        for segment in reversed(self.segments):
            names = names.set(matches(frame, segment.when), segment.name)
        return names.fill_null(OTHER).to_list()


def load(path: Path | str) -> Campaign:
    """The campaign in a YAML file.

    Raises ConfigError with every mistake: file, line, key and what is expected.
    """
    return read_config(Path(path), Campaign)
