"""Recommend and send as programs ask for them; HTTP and gRPC are two ways in to the same calls."""

import secrets
from collections.abc import Sequence
from typing import Protocol

from reco.errors import RecoError
from reco.models.slates import Rung, Slates
from render.reasons import reason_sentence
from serve.chunks import Choice
from serve.questions import Answer, Question
from serve.schemas import (
    Pick,
    RecommendRequest,
    RecommendResponse,
    SendRequest,
    SendResponse,
    UserPicks,
)
from serve.single import Ask, Sent


class Asked(Protocol):
    """What the calls need of the gateway."""

    async def send(self, ask: Ask) -> Sent | RecoError:
        """One single send, gathered with others."""

    async def recommend(self, question: Question) -> Answer | RecoError:
        """One question, gathered with others."""


def is_key(api_key: str, authorization: str, x_api_key: str) -> bool:
    """Whether one of the two headers has the key; takes the same time for every wrong one."""
    given = x_api_key or authorization.removeprefix("Bearer ")
    return secrets.compare_digest(given.encode(), api_key.encode())


async def recommend(asked: Asked, body: RecommendRequest) -> RecommendResponse:
    """Ranked items of each user. Raises RecoError."""
    choice = Choice(by="recommend", picks=body.k, rules=body.rules, as_of=body.as_of)
    answer = await asked.recommend(Question(choice, body.users))
    if isinstance(answer, RecoError):
        raise answer
    found = answer.chunk
    places = range(answer.first, answer.first + len(body.users))
    return RecommendResponse(
        users=tuple(
            UserPicks(
                user_id=found.user_ids[i],
                picks=picks(found.slates, i, found.item_ids[i], found.titles[i], found.bought[i]),
            )
            for i in places
        ),
        model=found.model_version,
        fallback=found.fallback,
        took_ms=found.took_ms,
    )


async def send(asked: Asked, body: SendRequest) -> SendResponse:
    """Where the delivery is after it was sent, now or before. Raises RecoError."""
    campaign = body.campaign or body.campaign_id
    assert campaign  # the schema demands one of them
    sent = await asked.send(Ask(campaign, body.user_id, body.key or ""))
    if isinstance(sent, RecoError):
        raise sent
    return SendResponse(
        campaign_id=sent.campaign_id,
        user_id=sent.user_id,
        state=sent.outcome.state,
        message_id=sent.outcome.message_id,
        reply=sent.outcome.reply,
    )


def picks(
    slates: Slates, i: int, item_ids: Sequence[str], titles: Sequence[str], bought: Sequence[str]
) -> tuple[Pick, ...]:
    """The slate of recipient i as the API shows it."""
    return tuple(
        Pick(
            item_id=item_id,
            title=titles[j],
            rank=j + 1,
            score=round(float(slates.scores[i, j]), 6),
            reason=reason_sentence(int(slates.reasons[i, j]), bought=bought[j]),
            rung=Rung(int(slates.rungs[i, j])).name.lower(),
        )
        for j, item_id in enumerate(item_ids)
    )
