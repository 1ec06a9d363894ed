"""Types that the keys of a campaign are made of, and what they refuse."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from reco.subscribers.hygiene import normalise

# An id becomes part of Message-IDs, file names and keys.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# Goes into a header of the mail: one line, so that nothing can be smuggled in.
Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=500)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def _address(value: str) -> str:
    if (address := normalise(value)) is None:
        raise ValueError("expected an e-mail address")
    return address


def _utc(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if isinstance(value, datetime) or not hasattr(value, "isoformat"):
        return value
    return f"{value.isoformat()}T00:00:00Z"  # YAML reads 2017-12-04 as a date


Address = Annotated[str, AfterValidator(_address)]
Time = Annotated[AwareDatetime, BeforeValidator(_utc)]


def _pairs(value: object) -> object:
    """A mapping as pairs, so that what holds it can be hashed."""
    return tuple(value.items()) if isinstance(value, Mapping) else value


Values = Annotated[tuple[tuple[str, tuple[str, ...]], ...], BeforeValidator(_pairs)]


class Strict(BaseModel):
    """A misspelt key is an error, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
