"""A campaign that runs on its own in the cluster: what POST /v1/campaigns starts."""

from typing import Any, Final
from uuid import uuid4

import ray
import structlog
from ray.actor import exit_actor

from reco.campaigns.campaign import Campaign
from reco.campaigns.store import CampaignStore
from reco.errors import RecoError
from serve.campaign import run
from serve.pausing import pausing
from serve.stores import Stores

log = structlog.get_logger()

NAMESPACE: Final = "reco"


class CampaignRunner:
    """Drives one campaign to its end, then goes. It sends nothing itself, so Ray may retry it."""

    def __init__(self, home: str, spec: bytes, scorer_budget_s: float) -> None:
        self._stores = Stores(home)
        self._campaign = Campaign.model_validate_json(spec)
        self._scorer_budget_s = scorer_budget_s

    def run(self) -> None:
        """See serve.campaign.run; what went wrong stands in the campaign's note."""
        services, budget_s = self._stores.services, self._scorer_budget_s
        try:
            # Also what goes wrong before the start: whoever resumed it has set it running already.
            with pausing(CampaignStore(self._stores.engine), self._campaign.id):
                # Who resumed it has set it running; Ray, which may call this again, must not.
                run(self._campaign, services, scorer_budget_s=budget_s, resume=False)
        except RecoError as error:
            log.warning("the campaign stopped", campaign=self._campaign.id, why=str(error))
        except Exception:
            log.exception("the campaign stopped", campaign=self._campaign.id)
        exit_actor()  # type: ignore[no-untyped-call]


def start_runner(home: str, campaign: Campaign, scorer_budget_s: float, *, resumed: bool) -> None:
    """Run a campaign in an actor that outlives its caller; one that runs already is left alone.

    A resumed campaign gets an actor of its own: the one before it may be about to end, and would
    take the new work down with it.
    """
    actor: Any = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(CampaignRunner)
    runner = actor.options(
        name=f"campaign {campaign.id}{f' {uuid4().hex}' if resumed else ''}",
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
    ).remote(home, campaign.model_dump_json().encode(), scorer_budget_s)
    runner.run.remote()
