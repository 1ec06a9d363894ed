"""What stops a campaign is written down beside it: it is paused, with the reason as its note."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from reco.campaigns.store import CampaignState, CampaignStore
from reco.errors import Conflict, RecoError

log = structlog.get_logger()

PAUSE_AGAIN_S: Final = (1.0, 3.0, 6.0, 0.0)


@contextmanager
def pausing(store: CampaignStore, campaign_id: str) -> Iterator[None]:
    """Whatever goes wrong in here pauses the campaign, with the reason as its note."""
    try:
        yield
    except Exception as error:
        why = f"{error.what} {error.why}".strip() if isinstance(error, RecoError) else repr(error)
        _pause(store, campaign_id, why)
        raise


def _pause(store: CampaignStore, campaign_id: str, why: str) -> None:
    """Pause it, unless it stopped already; a store that is away may be back in some seconds."""
    for wait_s in PAUSE_AGAIN_S:
        try:
            store.move(campaign_id, CampaignState.PAUSED, why, sources=(CampaignState.RUNNING,))
        except Conflict:
            return
        except SQLAlchemyError as error:
            log.warning("the pause is not written down yet", why=str(error).splitlines()[0])
            time.sleep(wait_s)
        else:
            return
