"""POST /v1/events: events from programs onto the bus. 202 means that the bus has them."""

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request
from pydantic import Field

from reco.embedded import Services
from reco.events.bus import Bus
from reco.events.door import MOST_BYTES, accept, is_signed, source_key
from serve.bodies import read_body
from serve.schemas import Strict


class Accepted(Strict):
    """What is on the bus now; event ids in the order of the request."""

    accepted: int
    event_ids: list[str] = Field(description='"" for what is no JSON object: a dead letter')


def router(services: Services, bus: Bus) -> APIRouter:
    """The route, which appends to `bus`."""
    routes = APIRouter()

    def take(body: bytes, source: str) -> list[str]:
        return accept(body, bus, datetime.now(UTC), source)

    @routes.post("/v1/events", status_code=202)
    async def events(
        request: Request,
        authorization: Annotated[str, Header()] = "",
        x_api_key: Annotated[str, Header()] = "",
        x_reco_source: Annotated[str, Header(max_length=100)] = "",
        x_reco_signature: Annotated[str, Header()] = "",
    ) -> Accepted:
        """Up to 1,000 events: one, a list, or {"events": [...]}.

        Either an API key, or the name of a source and its signature of the body, which is checked
        whenever it is there. Events with an event_id count once, however often they are sent.
        """
        body = await read_body(request, MOST_BYTES)
        if x_reco_source or x_reco_signature:
            if not is_signed(x_reco_signature, source_key(services.link_key, x_reco_source), body):
                raise HTTPException(401, "The signature is not that of this source and body.")
        else:
            given = x_api_key or authorization.removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), services.api_key.encode()):
                raise HTTPException(401, "The API key is missing or wrong.")
        ids = await asyncio.to_thread(take, body, x_reco_source)
        return Accepted(accepted=len(ids), event_ids=ids)

    return routes
