"""/v1/subscribers: addresses judged where people sign up, before they are on any list."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

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


def router(verifier_url: str | None, domains: MailDomains | None = None) -> APIRouter:
    """Routes below /v1; the cache of DNS answers lives as long as they do."""
    routes = APIRouter(prefix="/subscribers")
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
