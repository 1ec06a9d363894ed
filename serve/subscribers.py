"""/v1/subscribers: addresses judged where people sign up, before they are on any list."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from reco.subscribers.consent import Consent, ConsentLog, Purpose
from reco.subscribers.mail_domains import MailDomains
from reco.subscribers.validation import Validator
from reco.subscribers.verifier import HttpVerifier, Verifier

DNS_TIMEOUT_S = 2.0  # somebody waits for the form


class ValidateRequest(BaseModel):
    """Addresses as people typed them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    addresses: tuple[Annotated[str, StringConstraints(max_length=1000)], ...] = Field(
        min_length=1, max_length=1000
    )
    dns: bool = Field(True, description="ask DNS, and the verifier where one is configured")


class AddressVerdict(BaseModel):
    """What is known of one address; `unknown` is no reason to turn anybody away."""

    address: str
    normalised: str | None
    status: Literal["valid", "invalid", "unknown"]
    why: str
    flags: tuple[str, ...]
    suggestion: str | None


class ValidateResponse(BaseModel):
    """A verdict on each address, in their order."""

    addresses: tuple[AddressVerdict, ...]


class Statement(BaseModel):
    """What somebody said, and when; `text_version` names the words that they were shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Purpose
    given: bool
    text_version: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    source: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    given_at: AwareDatetime | None = Field(None, description="default: now")


class ConsentRequest(BaseModel):
    """Statements of one subscriber."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consents: tuple[Statement, ...] = Field(min_length=1, max_length=100)


class ConsentRecord(BaseModel):
    """All that a subscriber ever said, the oldest first: the proof of consent."""

    user_id: str
    consents: tuple[Statement, ...]


def router(
    verifier_url: str | None, log: ConsentLog, domains: MailDomains | None = None
) -> APIRouter:
    """Routes below /v1; the cache of DNS answers lives as long as they do."""
    routes = APIRouter(prefix="/subscribers")
    _consent_routes(routes, log)
    verifier: Verifier | None = HttpVerifier(verifier_url) if verifier_url else None
    by_words = Validator()
    in_full = Validator(domains or MailDomains(timeout_s=DNS_TIMEOUT_S), verifier)

    @routes.post("/validate")
    async def validate(body: ValidateRequest) -> ValidateResponse:
        """Whether addresses can be written to: syntax, DNS, roles, throw-away domains, typos."""
        checked = await (in_full if body.dns else by_words).check_many(body.addresses)
        return ValidateResponse(
            addresses=tuple(
                AddressVerdict(
                    address=c.address,
                    normalised=c.normalised,
                    status=c.status.value,
                    why=c.why,
                    flags=c.flags,
                    suggestion=c.suggestion,
                )
                for c in checked
            )
        )

    return routes


def _consent_routes(routes: APIRouter, log: ConsentLog) -> None:
    @routes.post("/{user_id}/consent")
    async def record(user_id: str, body: ConsentRequest) -> ConsentRecord:
        """Add statements; they are in force for the next mail, and for the links of old ones."""
        said = [
            Consent(s.purpose, s.given, s.text_version, s.source, s.given_at or datetime.now(UTC))
            for s in body.consents
        ]
        await asyncio.to_thread(log.record, user_id, said)
        return await show(user_id)

    @routes.get("/{user_id}/consent")
    async def show(user_id: str) -> ConsentRecord:
        """Everything on record for a subscriber."""
        return ConsentRecord(
            user_id=user_id,
            consents=tuple(
                Statement(
                    purpose=c.purpose,
                    given=c.given,
                    text_version=c.text_version,
                    source=c.source,
                    given_at=c.given_at,
                )
                for c in await asyncio.to_thread(log.of, user_id)
            ),
        )
