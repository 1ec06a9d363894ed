"""What shown items earn: learned from clicks of people, drawn towards the ranker, never from later.

Readers are SIMULATED.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from reco.models.artifact import Artifact
from reco.models.picks import Picks
from reco.models.response import RESPONSE_FEATURES, Response, margins
from reco.models.scorer import Scorer
from reco.outcomes.bots import TRAP_SLOT
from reco.outcomes.impressions import DRAWN, MAILED, impressions_of
from tests.model_world import DAY, START, artifact_of, catalogue_of, histories_of
from tests.offline_loop import (
    CLOSED,
    EVENING,
    NOW,
    Offline,
    Silent,
    a_week,
    shown_before,
)
from tests.taste_world import BROWSER, Habits, Shoppers
from train.config import ResponseConfig, TrainConfig
from train.impressions import Rows, drawn_weight
from train.loop import run_stage
from train.response_stage import CLICK, PURCHASE, ResponseStage, learned, response
from train.workers import Workers

CATALOGUE = catalogue_of(60)
MODEL = artifact_of(CATALOGUE)
F = len(RESPONSE_FEATURES)
SETTINGS = ResponseConfig()
HOUR = timedelta(hours=1)
ACCEPTED = NOW - timedelta(days=30)
NO_DRAWS = pl.DataFrame(schema=DRAWN)


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker: on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def rows(mails, liked=0.0, seed=0):
    """Three items a mail; the ranker's word holds, and `liked` says what mails add to it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3 * mails, F)).astype(np.float32)
    x[:, 0] = rng.normal(-3, 1, 3 * mails)
    planted = RESPONSE_FEATURES.index("log_category_share")
    clicked = rng.random(3 * mails) < sigmoid(x[:, 0] + liked * x[:, planted])
    bought = np.where(clicked, rng.random(3 * mails) < 0.4, np.nan)
    left = np.repeat(rng.random(mails) < 0.02, 3)
    return Rows(
        x, np.repeat(np.arange(mails), 3), clicked.astype(np.float32), bought.astype(np.float32),
        left.astype(np.float32), np.ones(3 * mails, np.float32),
    )  # fmt: skip


def taught(found, **settings):
    config = SETTINGS.model_copy(update=settings)
    early, late = learned(found, config)
    stage = ResponseStage(early, config.prior)
    run_stage(stage, Workers(), Silent())
    return stage.heads, response(stage.heads, early, late, MODEL, config)


def test_what_mails_add_to_the_ranker_is_learned():
    _, found = taught(rows(1_500, liked=1.0))

    planted = RESPONSE_FEATURES.index("log_category_share")
    assert found.weight[planted, CLICK] == pytest.approx(1.0, abs=0.2)
    assert found.weight[0, CLICK] == pytest.approx(1.0, abs=0.15)


def test_few_mails_change_little_and_none_is_learned_below_the_floor():
    heads, _ = taught(rows(250, liked=1.0), prior=1e6)

    assert torch.allclose(heads.weight, heads.start, atol=0.02)
    assert learned(rows(60), SETTINGS) is None


def test_heads_that_foretell_later_mails_worse_than_the_ranker_are_refused():
    found = rows(400, liked=1.0)
    late = found.mail >= 300
    x = found.x.copy()
    x[late, 1:] = -x[late, 1:]  # what was learned is wrong of the later mails

    assert taught(replace(found, x=x))[1] is None


def test_chances_are_calibrated_on_later_mails():
    heads, found = taught(rows(4_000, liked=0.7), later=0.5)
    fresh = rows(3_000, liked=0.7, seed=1)
    z = heads(torch.from_numpy(fresh.x)).detach().numpy() * found.platt[:, 0] + found.platt[:, 1]

    p = sigmoid(z)
    assert p[:, CLICK].mean() == pytest.approx(fresh.clicked.mean(), rel=0.1)
    assert p[:, PURCHASE].mean() == pytest.approx(0.4, abs=0.08)
    top = p[:, CLICK] > np.quantile(p[:, CLICK], 0.9)
    assert p[top, CLICK].mean() == pytest.approx(fresh.clicked[top].mean(), rel=0.2)


def touch(user, slot, at, event_id, kind="click"):
    return {"event_id": event_id, "type": kind, "timestamp": at, "user_id": user, "slot": slot,
            "campaign_id": "c", "delivery_id": user, "item_id": None,
            "attributes": f'{{"user_agent": "{BROWSER.format(1)}", "method": "GET"}}'}  # fmt: skip


def shown(*events, users=("u",), now=NOW, tracked=True):
    mails = pl.DataFrame(
        [("c", u, u, ["a", "b", "x"], ACCEPTED, tracked) for u in users], schema=MAILED,
        orient="row",
    )  # fmt: skip
    schema = {"event_id": pl.String, "type": pl.String, "timestamp": pl.Datetime("us", "UTC"),
              "user_id": pl.String, "slot": pl.Int32, "campaign_id": pl.String,
              "delivery_id": pl.String, "item_id": pl.String, "attributes": pl.String}  # fmt: skip
    return impressions_of(mails, pl.DataFrame(events, schema=schema).lazy(), NO_DRAWS, now)


def test_clicks_of_people_are_labels_and_those_of_programs_and_opens_are_none():
    scanner = [touch("u", s, ACCEPTED + HOUR, f"b{s}") for s in (0, 1, 2, TRAP_SLOT)]
    person = touch("u", 1, ACCEPTED + 2 * HOUR, "p")
    opened = touch("u", None, ACCEPTED + HOUR, "o", "open")

    assert [0, 0, 0] == shown(*scanner, opened)["clicked"].to_list()
    assert [0, 1, 0] == shown(*scanner, opened, person)["clicked"].to_list()
    assert shown(person, tracked=False).is_empty()


def test_what_happened_after_the_cut_is_not_known_and_nothing_before_a_window_is_over():
    person = touch("u", 0, ACCEPTED + 2 * HOUR, "p")
    bought = touch("u", None, ACCEPTED + 4 * HOUR, "q", "purchase") | {"item_id": "a"}
    left = touch("u", None, ACCEPTED + 4 * HOUR, "l", "unsubscribe")
    everything = (person, bought, left)

    def at(now):
        return shown(*everything, now=now).select("clicked", "bought", "left").rows()[0]

    assert at(ACCEPTED + 71 * HOUR) == (None, None, None)
    assert at(ACCEPTED + 72 * HOUR) == (1, None, None)
    assert at(ACCEPTED + 7 * 24 * HOUR) == (1, None, 1)
    assert at(ACCEPTED + 8 * 24 * HOUR) == (1, 1, 1)
    assert shown(person, now=ACCEPTED + 72 * HOUR)["clicked"].to_list() == [1, 0, 0]
    assert shown(person, now=NOW)["left"].to_list() == [0, 0, 0]


def test_rare_draws_weigh_more_and_undrawn_items_as_one():
    weight = drawn_weight(np.array([np.nan, 0.1, 0.4, np.nan]))

    assert [1.0, 1.6, 0.4, 1.0] == pytest.approx(weight.tolist())


def earning(**columns):
    """Heads that look at the named features alone, for clicks."""
    weight = np.zeros((F, 3), np.float32)
    for name, value in columns.items():
        weight[RESPONSE_FEATURES.index(name), CLICK] = value
    wide = np.full(F, 1e6, np.float32)
    platt = np.array([[1, 0]] * 3, np.float32)
    cost = np.array([0.0], np.float32)
    return Response(
        weight, np.zeros(3, np.float32), -wide, wide, platt, np.ones(60, np.float32), cost
    )


PAST = histories_of(CATALOGUE, [12, 3, 0, 30])
WHEN: datetime = START + timedelta(days=DAY)


def test_items_are_ranked_by_what_they_earn_and_scores_stay_probabilities():
    plain = Scorer(MODEL, CATALOGUE, "v").score(PAST, WHEN, 60)
    same = Scorer(replace(MODEL, response=earning(organic=1.0)), CATALOGUE, "v")
    reverse = Scorer(replace(MODEL, response=earning(organic=-1.0)), CATALOGUE, "v")

    assert (same.score(PAST, WHEN, 5).items == plain.items[:, :5]).all()
    turned = reverse.score(PAST, WHEN, 60)
    of = [dict(zip(i.tolist(), s.tolist(), strict=True)) for i, s in zip(plain.items, plain.scores,
                                                                        strict=True)]  # fmt: skip
    for user, known in enumerate(of):
        filled = turned.items[user] != 0
        scores = turned.scores[user][filled]
        assert (np.diff(scores) >= -2e-7).all()  # what float32 cannot tell apart may change places
        assert scores.tolist() == [known[i] for i in turned.items[user][filled].tolist()]
    assert (reverse.by_probability().score(PAST, WHEN, 60).items == plain.items).all()


def test_margin_and_the_cost_of_a_lost_reader_count():
    model = Scorer(MODEL, CATALOGUE, "v")
    picks, taste, _ = model.candidates(PAST, WHEN, 5)
    flat = earning()
    dear = replace(flat, margin=margins(MODEL.statistics.price, by_price=True))
    costly = replace(flat, leave_cost=np.array([1.0], np.float32))

    def value(found: Response, p: Picks = picks):
        return found.value(p, taste, MODEL.statistics)

    there = picks.row >= 0
    assert value(flat)[there] == pytest.approx(0.25)
    assert value(dear)[there] == pytest.approx(0.25 * dear.margin[picks.row[there]], rel=1e-5)
    assert value(costly)[there] == pytest.approx(0.25 - 0.5)
    assert np.isneginf(value(flat)[~there]).all()
    assert margins(MODEL.statistics.price, by_price=True).mean() == pytest.approx(1.0, rel=1e-5)


def test_an_artifact_without_mails_has_the_bytes_it_always_had(tmp_path):
    with_heads = replace(MODEL, response=earning(organic=0.5, had=-1.0))
    MODEL.save(str(tmp_path / "plain"))
    with_heads.save(str(tmp_path / "taught"))

    plain = {p.name: p.read_bytes() for p in (tmp_path / "plain").iterdir()}
    more = {p.name: p.read_bytes() for p in (tmp_path / "taught").iterdir()}
    assert set(more) - set(plain) == {"response.safetensors"}
    assert all(more[name] == plain[name] for name in plain if name != "config.json")
    assert b"response" not in plain["config.json"]
    found = Artifact.load(str(tmp_path / "taught")).response
    assert found is not None
    assert np.array_equal(found.weight, with_heads.response.weight)
    assert Artifact.load(str(tmp_path / "plain")).response is None


def test_the_next_training_improves_the_policy_on_the_truth(tmp_path):
    loop = Offline(tmp_path, Shoppers(1_000, 1), TrainConfig())
    week = a_week(loop, Habits(bots=0.15, apple=0.05, bounce=0.005, leave=0.001))

    model = loop.fit(NOW + CLOSED, shown_before(loop, week.mails, NOW + CLOSED))

    def value(artifact: Artifact):
        return loop.shop.value(loop.policy(artifact, week.past, EVENING))

    def interval(gain):
        half = 1.96 * gain.std() / np.sqrt(len(gain))
        return gain.mean() - half, gain.mean() + half

    assert interval(value(model) - week.value)[0] > 0
    # What mails taught is kept only where it surely foretells later ones better.
    assert interval(value(model) - value(replace(model, response=None)))[1] >= 0
