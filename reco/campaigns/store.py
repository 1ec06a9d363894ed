"""Campaigns as stored: their configuration, their state, and who may change it.

Every change of state is compare-and-set, so of two operators one wins and the other is told.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine import Engine, Row

from reco.campaigns.campaign import Campaign
from reco.database import CAMPAIGNS
from reco.errors import Conflict, NotFound


class CampaignState(StrEnum):
    """State of a campaign.

    from      to                                  when
    draft     running, paused, cancelled          sent; its single sends held up; given up
    running   paused, finished, cancelled         by hand, by trouble, or because deferred mails
                                                  wait; nothing is left; given up
    paused    running, draft, cancelled           resumed, to where it was; given up
    finished  running                             sent again: reaches only who is not in the ledger
    """

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"


STEPS: Final = {
    CampaignState.DRAFT: {
        CampaignState.RUNNING,
        CampaignState.PAUSED,
        CampaignState.CANCELLED,
    },
    CampaignState.RUNNING: {
        CampaignState.PAUSED,
        CampaignState.FINISHED,
        CampaignState.CANCELLED,
    },
    CampaignState.PAUSED: {
        CampaignState.RUNNING,
        CampaignState.DRAFT,
        CampaignState.CANCELLED,
    },
    CampaignState.FINISHED: {CampaignState.RUNNING},
    CampaignState.CANCELLED: set[CampaignState](),
}

TODO: Final = {
    (CampaignState.PAUSED, CampaignState.RUNNING): "Resume it once its reason is gone.",
    (CampaignState.DRAFT, CampaignState.RUNNING): "Send it; single sends need no start.",
}


@dataclass(frozen=True, slots=True)
class StoredCampaign:
    """A campaign and how far it is."""

    campaign: Campaign
    state: CampaignState
    created_at: datetime
    started_at: datetime | None  # the first start
    finished_at: datetime | None
    note: str | None  # why it was paused or cancelled

    @property
    def goes_on(self) -> bool:
        """Whether it has a driver once it is resumed; a draft that waits for its time has one."""
        return self.state is CampaignState.RUNNING or self.campaign.window.start_at is not None


class CampaignStore:
    """The table of campaigns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, campaign: Campaign) -> StoredCampaign:
        """Store a new campaign as a draft; one that is stored just so already is left alone.

        Raises Conflict when another campaign has the id.
        """
        config = campaign.model_dump(mode="json")
        statement = insert(CAMPAIGNS).values(
            campaign_id=campaign.id, state=CampaignState.DRAFT.value, config=config
        )
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_nothing())
        stored = self.get(campaign.id)
        if stored.campaign != campaign:
            raise Conflict(
                f"Campaign {campaign.id} is stored with another configuration.",
                f"It is {stored.state} since {stored.created_at:%Y-%m-%d %H:%M} UTC; its mails and "
                "its report would not be what the new configuration says.",
                "Give the changed campaign a new id.",
            )
        return stored

    def get(self, campaign_id: str) -> StoredCampaign:
        """A campaign by id. Raises NotFound."""
        statement = select(CAMPAIGNS).where(CAMPAIGNS.c.campaign_id == campaign_id)
        with self._engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise NotFound(
                f"There is no campaign {campaign_id}.",
                todo="Send it with `reco campaign send FILE`, or check the id.",
            )
        return _stored(row)

    def all(self) -> Sequence[StoredCampaign]:
        """Every campaign, the newest first."""
        statement = select(CAMPAIGNS).order_by(CAMPAIGNS.c.created_at.desc())
        with self._engine.connect() as connection:
            return [_stored(row) for row in connection.execute(statement)]

    def join(self, campaign_id: str) -> StoredCampaign:
        """Set a campaign running that is not paused; one that runs already stays so.

        Raises Conflict, NotFound.
        """
        return self._run(campaign_id, (CampaignState.DRAFT, CampaignState.FINISHED))

    def resume(self, campaign_id: str) -> StoredCampaign:
        """Go on with a paused campaign, where it was; one that runs already stays so.

        One that never ran is a draft again: only its single sends go on. Raises Conflict, NotFound.
        """
        stored = self.get(campaign_id)
        if stored.state is CampaignState.PAUSED and stored.started_at is None:
            return self.move(campaign_id, CampaignState.DRAFT)
        return self._run(campaign_id, (CampaignState.PAUSED,))

    def _run(self, campaign_id: str, sources: Collection[CampaignState]) -> StoredCampaign:
        try:
            return self.move(campaign_id, CampaignState.RUNNING, sources=sources)
        except Conflict:
            stored = self.get(campaign_id)
            if stored.state is CampaignState.RUNNING:
                return stored
            raise

    def move(
        self,
        campaign_id: str,
        to: CampaignState,
        note: str | None = None,
        *,
        sources: Collection[CampaignState] = tuple(CampaignState),
    ) -> StoredCampaign:
        """Change the state along `STEPS`, as far as it is one of `sources`, in one compare-and-set.

        Raises Conflict when the campaign is in a state from which `to` cannot be reached, NotFound
        when there is none.
        """
        columns = CAMPAIGNS.c
        allowed = [source.value for source in sources if to in STEPS[source]]
        values: dict[str, Any] = {"state": to.value, "note": note}
        if to is CampaignState.RUNNING:
            values |= {"started_at": func.coalesce(columns.started_at, func.now())}
            values |= {"finished_at": None}
        elif to in (CampaignState.FINISHED, CampaignState.CANCELLED):
            values |= {"finished_at": func.now()}
        statement = (
            update(CAMPAIGNS)
            .where(columns.campaign_id == campaign_id, columns.state.in_(allowed))
            .values(values)
        )
        with self._engine.begin() as connection:
            moved = connection.execute(statement).rowcount == 1
        stored = self.get(campaign_id)
        if not moved:
            raise Conflict(
                f"Campaign {campaign_id} cannot become {to}.",
                f"It is {stored.state}" + (f": {stored.note}." if stored.note else "."),
                TODO.get((stored.state, to), "Look at `reco campaign status` and try again."),
            )
        return stored


def _stored(row: Row[Any]) -> StoredCampaign:
    return StoredCampaign(
        Campaign.model_validate(row.config),
        CampaignState(row.state),
        row.created_at,
        row.started_at,
        row.finished_at,
        row.note,
    )
