"""The door: HTTP for programs under /v1, the same calls by gRPC, and the links of mail readers.

Single sends and questions are gathered here into chunks; a chunk of mails takes the same path as a
campaign's.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from ray import serve
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle

from reco import __version__
from reco.campaigns.campaign import Campaign
from reco.campaigns.ledger import LEASE_S, Ledger
from reco.campaigns.store import CampaignState, CampaignStore, StoredCampaign
from reco.errors import Conflict, RecoError
from reco.subscribers.store import SubscriberStore
from serve import api, console, ingest, live, preferences, problems, public, reco_pb2
from serve.chunks import Assembled, Request
from serve.gathering import Gathering, Unforeseen, by_group
from serve.graph import Graph
from serve.grpc_door import GrpcDoor
from serve.metrics import Meters
from serve.questions import MOST_USERS, Answer, Question, answered, by_choice
from serve.readers import Readers
from serve.runner import start_runner
from serve.sender import Sender
from serve.senders import SenderOrder, open_sender
from serve.single import Ask, Sent, SingleSends, by_campaign
from serve.stores import Stores

GATHERED: Final = 128  # single sends in a chunk
GATHER_PAUSE_S: Final = 0.003  # a group begins when nobody came for so long,
GATHER_S: Final = 0.03  # or its first call waits so long;
BEHIND_S: Final = 0.15  # beside one that takes longer than any should,
GROUPS_AT_ONCE: Final = 4  # up to so many: each costs as much as twenty of its mails


@serve.ingress()
class Gateway:
    """Answers requests; holds no model, no template and no state that another replica lacks."""

    def __init__(
        self,
        home: str,
        door_budget_s: float,
        campaign_budget_s: float,
        features: DeploymentHandle[Any],
        scorer: DeploymentHandle[Any],
        rules: DeploymentHandle[Any],
        renderer: DeploymentHandle[Any],
    ) -> None:
        self._home = home
        self._campaign_budget_s = campaign_budget_s
        self.stores = Stores(home)
        self.graph = Graph(door_budget_s, features, scorer, rules, renderer)
        self.campaigns = CampaignStore(self.stores.engine)
        self._stored = CampaignStore(self.stores.reading)  # asked for each group of sends
        self.subscribers = SubscriberStore(self.stores.engine)
        self.ledger = Ledger(self.stores.services.database_url)
        self.readers = Readers(self.stores)
        self._meters = Meters()
        self._single = SingleSends(self.ledger)
        self._grpc = GrpcDoor(self, self.stores.services.api_key)
        self._sends: Gathering[Ask, Sent | RecoError] = Gathering(
            self._send_all,
            most=GATHERED,
            pause_s=GATHER_PAUSE_S,
            wait_s=GATHER_S,
            behind_s=BEHIND_S,
            at_once=GROUPS_AT_ONCE,
        )
        self._questions: Gathering[Question, Answer | RecoError] = Gathering(
            self._answer_all,
            most=MOST_USERS,
            pause_s=GATHER_PAUSE_S,
            wait_s=GATHER_S,
            behind_s=BEHIND_S,
            at_once=GROUPS_AT_ONCE,
            size=lambda question: len(question.users),
        )
        self._senders: dict[str, Sender] = {}
        self._open = AsyncExitStack()
        self._opening = asyncio.Lock()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray calls this once the replica is made."""
        app = FastAPI(title="reco", version=__version__)
        problems.install(app)
        api.install(app, self)
        app.include_router(public.router(self.readers, self._meters))
        page = preferences.PreferencePage(self.stores, self.stores.bus)
        app.include_router(preferences.router(page))
        app.include_router(live.router(live.LivePictures(self.stores)))
        app.include_router(console.router(self))
        app.include_router(ingest.router(self.stores.services, self.stores.bus))
        return app

    async def Recommend(  # noqa: N802 - Ray calls a method by the name that reco.proto gives it
        self, request: reco_pb2.RecommendRequest, grpc_context: RayServegRPCContext
    ) -> reco_pb2.RecommendResponse:
        """See serve.grpc_door.GrpcDoor.recommend."""
        return await self._grpc.recommend(request, grpc_context)

    async def Send(  # noqa: N802
        self, request: reco_pb2.SendRequest, grpc_context: RayServegRPCContext
    ) -> reco_pb2.SendResponse:
        """See serve.grpc_door.GrpcDoor.send."""
        return await self._grpc.send(request, grpc_context)

    async def assemble(self, request: Request) -> Assembled:
        """The mails of a chunk. Raises as serve.graph.Graph.assemble does."""
        return await self.graph.assemble(request)

    async def send(self, ask: Ask) -> Sent | RecoError:
        """Send a single mail, together with others that are asked for meanwhile."""
        return await self._sends.ask(ask)

    async def recommend(self, question: Question) -> Answer | RecoError:
        """Answer a question, together with others that come meanwhile."""
        return await self._questions.ask(question)

    async def _send_all(self, asks: list[Ask]) -> Sequence[Sent | RecoError | Unforeseen]:
        """Send single mails; an error belongs to the asks of its campaign only."""
        return await by_group(asks, by_campaign(asks), self._send_group)

    async def _answer_all(
        self, questions: list[Question]
    ) -> Sequence[Answer | RecoError | Unforeseen]:
        """Recommend; an error belongs to the questions of the same choice only."""
        return await by_group(questions, by_choice(questions), partial(answered, self.graph))

    async def _send_group(self, asks: list[Ask]) -> list[Sent] | list[RecoError]:
        try:
            campaign, sender = await self._sender(asks[0].campaign)
            return await self._single.send(sender, campaign, asks)
        except RecoError as error:
            return [error] * len(asks)

    async def _sender(self, asked: Campaign | str) -> tuple[Campaign, Sender]:
        """A campaign and its sender in this replica; made when first needed."""
        find: Callable[[], StoredCampaign] = (
            partial(self._stored.get, asked)
            if isinstance(asked, str)
            else partial(self.campaigns.create, asked)
        )
        stored = await asyncio.to_thread(find)
        campaign = stored.campaign
        if stored.state in (CampaignState.PAUSED, CampaignState.CANCELLED):
            raise Conflict(
                f"Campaign {campaign.id} is {stored.state}.",
                stored.note or "",
                "Resume it, or use another one.",
            )
        async with self._opening:
            if campaign.id not in self._senders:
                order = SenderOrder(
                    home=self._home,
                    smtp_url=self.stores.services.smtp_url,
                    spec=campaign.model_dump_json().encode(),
                    scorer_budget_s=self.graph.scorer_budget_s,
                    rate_per_s=campaign.rate_per_s,
                    lease_s=LEASE_S,
                )
                opened = open_sender(campaign, order, self.stores, self.graph, self._meters)
                self._senders[campaign.id] = await self._open.enter_async_context(opened)
        return campaign, self._senders[campaign.id]

    def start(self, campaign: Campaign, *, resumed: bool = False) -> None:
        """Let a campaign run on its own."""
        start_runner(self._home, campaign, self._campaign_budget_s, resumed=resumed)
