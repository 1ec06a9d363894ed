"""The second gate: a log of drawn places, written as senders write it, and what it says."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sqlalchemy import update

from reco.campaigns.campaign import Campaign
from reco.campaigns.delivery import HandOff, Settled, State
from reco.campaigns.ledger import Ledger
from reco.campaigns.variants import in_places
from reco.database import DELIVERIES, SUBSCRIBERS
from reco.events.schema import conform
from reco.models.scorer import Scorer
from reco.outcomes.copy_log import CopyLog
from reco.outcomes.explored import explored
from reco.subscribers.store import SubscriberStore
from reco.tables import EVENTS
from tests.model_world import DAY, START, artifact_of, catalogue_of, histories_of
from train.policy_gate import judge_policy

SENT = START + timedelta(days=DAY, hours=9)
CATALOGUE = catalogue_of(60)
MODEL = Scorer(artifact_of(CATALOGUE, candidates=60), CATALOGUE, "new")
USERS = [f"u{i:04d}" for i in range(1_500)]
HISTORIES = histories_of(CATALOGUE, [12] * len(USERS))
PLACE_OF = {user: i for i, user in enumerate(USERS)}


def pasts(users):
    parts = [HISTORIES.take(PLACE_OF[u], PLACE_OF[u] + 1) for u in users]
    out = parts[0]
    records = np.concatenate([p.records for p in parts])
    ends = np.cumsum([0, *(len(p.records) for p in parts)])
    tokens = np.concatenate([p.tokens for p in parts])
    return type(out)(records, ends, tokens, np.zeros(len(users), np.uint16))


def drawn_log(rate_of_best, rate_of_others, mails=1_500, seed=0):
    """Three of ten candidates in each mail; clicked by whether the model likes them best."""
    rng = np.random.default_rng(seed)
    users = USERS[:mails]
    ids = dict(zip(CATALOGUE.keys.tolist(), CATALOGUE.item_ids.tolist(), strict=True))
    pools = MODEL.score(pasts(users), SENT.replace(hour=0), 10).items
    rows = []
    for user, pool in zip(users, pools, strict=True):
        for place, j in enumerate(rng.permutation(10)[:3]):
            clicked = rng.random() < (rate_of_best if j < 3 else rate_of_others)
            rows.append(("c", user, ids[int(pool[j])], place, 0.1, SENT, float(clicked)))
    names = ("campaign_id", "delivery_id", "item_id", "place", "propensity", "sent_at", "reward")
    return pl.DataFrame(rows, schema=names, orient="row")


def test_a_model_whose_favourites_were_clicked_more_than_other_draws_may_serve():
    found = judge_policy(drawn_log(0.2, 0.05), pasts, MODEL, None)

    assert found.passed
    assert "off-policy on 1500 mails: 0.1" in found.why


def test_a_model_whose_favourites_were_clicked_less_may_not():
    found = judge_policy(drawn_log(0.02, 0.1), pasts, MODEL, None)

    assert not found.passed
    assert found.why.endswith("it would lose clicks")


@pytest.mark.parametrize("seed", range(3))
def test_a_model_as_good_as_the_draws_is_not_refused(seed):
    assert judge_policy(drawn_log(0.05, 0.05, seed=seed), pasts, MODEL, None).passed


def test_the_champion_itself_gains_nothing_over_the_champion():
    found = judge_policy(drawn_log(0.2, 0.05), pasts, MODEL, MODEL)

    assert "gain over the champion 0.0000 (0.0000 to 0.0000)" in found.why


def test_few_mails_and_foreign_candidates_give_no_number_and_no_veto():
    few = judge_policy(drawn_log(0.02, 0.1, mails=40), pasts, MODEL, None)
    strange = drawn_log(0.02, 0.1).with_columns(item_id=pl.lit("never shown"))
    other = judge_policy(strange, pasts, MODEL, None)

    assert (True, "no off-policy check: 40 mails of arms that explore have a closed window") == (
        few.passed, few.why
    )  # fmt: skip
    assert other.passed
    assert other.why.startswith("no off-policy number: Only 0 of 1500 units")


CAMPAIGN = Campaign.model_validate(
    {"id": "c", "template": "digest", "from_name": "Shop", "from_email": "news@shop.example",
     "postal_address": "1 Example Street", "arms": [{"name": "x", "weight": 1, "slate": "explore"}]}
)  # fmt: skip


@pytest.fixture
def sent(engine, database_url, lake):
    """Three mails with two drawn places each, accepted four days ago; one reader is not followed,
    one mail was made again with another item in its second place.
    """
    users, accepted = ["a", "b", "c"], datetime.now(UTC) - timedelta(days=4)
    SubscriberStore(engine).upsert(pl.DataFrame({"user_id": users}))
    CopyLog(engine).record(CAMPAIGN, {u: in_places(["i1", "i2"], 0.1, "other") for u in users})
    with Ledger(database_url) as ledger:
        ledger.enqueue("c", [(user, "x") for user in users])
        claim = ledger.claim("c", 10)
        shown = {"a": ["i1", "i2"], "b": ["i1", "i9"], "c": ["i1", "i2"]}
        ledger.hand_off(
            "c",
            claim.fence,
            [HandOff(u, f"<{u}@x>", 1, shown[u], [0, 0], [6, 6], 1) for u in users],
        )
        ledger.settle("c", claim.fence, [Settled(u, State.ACCEPTED, "250") for u in users])
    with engine.begin() as connection:
        followed = SUBSCRIBERS.c.user_id.in_(["a", "b"])
        connection.execute(update(SUBSCRIBERS).where(followed).values(consent_tracking=True))
        connection.execute(update(DELIVERIES).values(settled_at=accepted))
    click = {"type": "click", "campaign_id": "c", "attributes": '{"user_agent": "Chrome/130"}'}
    lake.append(
        conform(
            pl.DataFrame(
                [
                    click | {"event_id": "1", "user_id": "a", "delivery_id": "a", "slot": 1,
                             "timestamp": accepted + timedelta(hours=1)},
                    click | {"event_id": "2", "user_id": "b", "delivery_id": "b", "slot": 0,
                             "timestamp": accepted + timedelta(hours=80)},
                ]
            ),
            EVENTS,
        )
    )  # fmt: skip
    return engine, lake, accepted


def test_the_log_holds_followed_mails_as_they_were_sent_once_their_window_is_over(sent):
    engine, lake, accepted = sent
    now = datetime.now(UTC)
    rows = explored(engine, lake, accepted - timedelta(days=1), now).sort("delivery_id", "place")

    assert [("a", "i1", 0, 0.1, 0.0), ("a", "i2", 1, 0.1, 1.0), ("b", "i1", 0, 0.1, 0.0)] == (
        rows.select("delivery_id", "item_id", "place", "propensity", "reward").rows()
    )
    assert explored(engine, lake, accepted, accepted + timedelta(hours=71)).is_empty()
    assert explored(engine, lake, accepted + timedelta(hours=1), now).is_empty()
