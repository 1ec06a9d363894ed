"""The train stage on the slice of the demo shop, through a real Ray, PostgreSQL, Redis and MLflow."""

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from reco.database import open_database
from reco.embedded import Services, connect_redis
from reco.errors import InputError, NotFound
from reco.events.completejourney import convert
from reco.events.importing import import_table
from reco.events.lake import Lake
from reco.features.online import OnlineStore
from reco.models.artifact import Artifact
from reco.models.registry import champion
from reco.models.scorer import Scorer
from reco.models.topk import unpack
from reco.tables import RECOMMENDATIONS, topk_key
from train import features, fit, precompute, recommend
from train.config import TrainConfig
from train.evaluate import FREQUENCY
from train.examples import open_store

# MLflow 3.17 declares its tables in a way that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

CUT = datetime(2017, 12, 4, tzinfo=UTC)
SLICE = Path(__file__).parent / "data" / "completejourney_slice"
QUICK = TrainConfig.model_validate(
    {"ranker": {"repeat_dates": 2, "epochs": 2}, "tower": {"dim": 32}, "promote": "always"}
)


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def shop(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The slice in a lake of its own, subscribers in the database."""
    folder = tmp_path_factory.mktemp("shop")
    files = convert(
        SLICE, folder / "files", public_url="http://x", image_name=lambda _: "x.png", as_of=CUT
    )
    lake, engine = Lake(str(folder / "lake")), open_database(services.database_url)
    tables = {"items": files.items, "subscribers": files.subscribers, "events": files.events}
    for table, path in tables.items():
        import_table(table, [path], None, lake, engine, folder / "quarantine", quiet)
    engine.dispose()
    return lake


@pytest.fixture(scope="module")
def trained(services: Services, ray_cluster: None, shop: Lake) -> Iterator[fit.FitSummary]:
    yield fit.run(QUICK, services, shop, CUT, quiet)


@pytest.fixture(scope="module")
def question(
    trained: fit.FitSummary, services: Services, shop: Lake
) -> Iterator[recommend.Question]:
    with open_store(services) as store:
        yield recommend.Question(shop, store, trained.directory, 20, CUT)


def test_the_stock_settings_are_those_of_the_file() -> None:
    from train.config import load_config

    assert load_config(Path(__file__).parent.parent / "configs" / "train.yaml") == TrainConfig()


def test_the_model_beats_the_simple_rivals(trained: fit.FitSummary) -> None:
    ndcg = {name: row["ndcg"] for name, row in trained.table.items()}

    assert set(ndcg) == {"model", "popular-7d", "popular-28d", FREQUENCY}
    assert ndcg["model"] > max(value for name, value in ndcg.items() if name != "model")
    assert trained.data.repeats
    assert trained.data.target == "purchase"


def test_the_champion_is_found_without_mlflow(trained: fit.FitSummary, services: Services) -> None:
    model = champion(connect_redis(services.redis_url))

    assert model is not None
    assert (model.version, model.directory) == (trained.version, trained.directory)


def test_mlflow_knows_the_version_and_each_epoch(
    trained: fit.FitSummary, services: Services
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=services.mlflow_uri)
    version = client.get_model_version_by_alias("reco", "champion")
    history = client.get_metric_history(version.run_id, "repeat_loss")

    assert version.source == trained.directory
    assert len(history) == 2 * QUICK.ranker.epochs  # of both fits
    assert history[1].value < history[0].value


def test_the_validation_fit_stops_a_horizon_earlier(trained: fit.FitSummary) -> None:
    final = Artifact.load(trained.directory).config
    validation = Artifact.load(f"{trained.directory}-validation").config

    assert final.as_of_day - validation.as_of_day == 28
    assert final.repeat_calibration == validation.repeat_calibration


def test_a_killed_worker_goes_on_from_its_checkpoint(
    trained: fit.FitSummary, services: Services, shop: Lake, tmp_path: Path
) -> None:
    """It dies after the fourth epoch; the result is that of a run without an accident."""
    plan = fit.prepare(QUICK, services, shop, CUT, quiet)
    diary = tmp_path / "diary"

    def loop(settings: dict[str, object]) -> None:
        from train import checkpoints, loop

        epoch = checkpoints.Reporter.epoch

        def dying(self: checkpoints.Reporter, *arguments: object) -> None:
            epoch(self, *arguments)  # type: ignore[arg-type]
            with diary.open("a") as page:
                page.write(f"{arguments[0].name} {arguments[1]}\n")  # type: ignore[attr-defined]
            if len(diary.read_text().splitlines()) == 4:
                os.kill(os.getpid(), signal.SIGKILL)

        checkpoints.Reporter.epoch = dying  # type: ignore[method-assign]
        loop.train_loop_per_worker(settings)

    fit.fit(plan.job, "with an accident", quiet, loop)

    epochs = diary.read_text().splitlines()
    # The last epoch before the accident may have died with it; those before are not done again.
    assert [epochs.count(name) for name in ("towers 0", "towers 1", "explore 0")] == [1, 1, 1]
    assert list(dict.fromkeys(epochs)) == [
        "towers 0",
        "towers 1",
        "explore 0",
        "explore 1",
        "repeat 0",
        "repeat 1",
    ]
    killed = Artifact.load(plan.job.directory)
    calm = Artifact.load(f"{trained.directory}-validation")
    assert all((killed.heads[name] == calm.heads[name]).all() for name in calm.heads)


def test_recommendations_are_twenty_ranked_items_a_subscriber(
    question: recommend.Question, tmp_path: Path
) -> None:
    out = tmp_path / "recs.parquet"

    summary = recommend.run(question, "all", out, quiet)

    table = pl.read_parquet(out)
    assert pq.read_schema(out).equals(RECOMMENDATIONS, check_metadata=False)
    assert summary.users == table["user_id"].n_unique() == 120
    assert (table.group_by("user_id").len()["len"] == 20).all()
    assert table.select("user_id", "item_id").is_unique().all()
    for _, rows in table.group_by("user_id", maintain_order=True):
        assert rows["rank"].to_list() == list(range(1, 21))
        assert (np.diff(rows["score"].to_numpy()) <= 0).all()


def test_what_comes_later_changes_no_byte(
    question: recommend.Question, shop: Lake, tmp_path: Path
) -> None:
    """Every event after the cut is given to another subscriber, item and day."""
    recommend.run(question, "all", tmp_path / "one.parquet", quiet)
    events = shop.events().collect()
    later = events.filter(pl.col("timestamp") >= CUT)
    past = events.filter(pl.col("timestamp") < CUT)
    assert len(later) > 100
    shuffled = later.with_columns(
        pl.col("user_id").shuffle(1), pl.col("item_id").shuffle(2), pl.col("timestamp").shuffle(3)
    )
    other = Lake(str(tmp_path / "lake"))
    other.write_items(shop.items())
    other.append(pl.concat([past.sample(fraction=1, shuffle=True, seed=4), shuffled]))

    changed = recommend.Question(other, question.store, question.directory, 20, CUT)
    recommend.run(changed, "all", tmp_path / "two.parquet", quiet)

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_only_the_items_and_users_that_were_asked_for(
    question: recommend.Question, shop: Lake, tmp_path: Path
) -> None:
    some = frozenset(shop.items()["item_id"].to_list()[::7])
    asked = recommend.Question(
        shop, question.store, question.directory, 5, CUT, items=some, novel_only=True
    )
    user = shop.events().collect()["user_id"][0]

    recommend.run(asked, [user], tmp_path / "recs.parquet", quiet)

    table = pl.read_parquet(tmp_path / "recs.parquet")
    history = shop.events(before=CUT).filter(pl.col("user_id") == user).collect()
    assert table["user_id"].unique().to_list() == [user]
    assert set(table["item_id"]) <= some
    assert not set(table["item_id"]) & set(history["item_id"])


def test_offers_are_ranked_by_the_items_in_them(
    question: recommend.Question, shop: Lake, tmp_path: Path
) -> None:
    user = str(shop.events().collect()["user_id"][0])
    recommend.run(question, [user], tmp_path / "items.parquet", quiet)
    best = pl.read_parquet(tmp_path / "items.parquet")["item_id"].to_list()
    offers = pl.DataFrame(
        {"offer_id": ["poor", "rich", "rich", "none"], "item_id": [best[9], best[0], best[1], "?"]}
    )
    asked = recommend.Question(shop, question.store, question.directory, 3, CUT, offers=offers)

    recommend.run(asked, [user], tmp_path / "offers.parquet", quiet)

    ranked = pl.read_parquet(tmp_path / "offers.parquet")
    assert ranked["item_id"].to_list() == ["rich", "poor", "none"]


def test_precompute_stores_what_the_scorer_would_say(
    trained: fit.FitSummary, services: Services, shop: Lake
) -> None:
    redis = connect_redis(services.redis_url)
    with open_store(services) as store:
        features.run(shop, store, OnlineStore(redis), CUT, quiet)
        users = store.ids(limit=1_000)

    summary = precompute.run(services, shop, quiet, k=30, ttl_s=600)

    assert summary.subscribers == len(users) == 120
    from reco.catalogue import Catalogue

    scorer = Scorer.load(trained.directory, Catalogue.of(shop.items()))
    live = scorer.score(OnlineStore(redis).fetch(users), CUT, 30)
    stored = unpack(redis.mget([topk_key(u) for u in users]), 30, trained.version)
    assert (stored.slates.items == live.items).mean() > 0.999  # chunks differ, so ties may turn
    assert np.allclose(stored.slates.scores, live.scores, atol=1e-3)
    assert 0 < redis.ttl(topk_key(users[0])) <= 600


def test_a_lake_without_events_says_what_to_do(services: Services, lake: Lake) -> None:
    with pytest.raises(NotFound, match="reco import"):
        fit.run(QUICK, services, lake, CUT, quiet)


def test_too_short_a_history_is_refused(services: Services, ray_cluster: None, shop: Lake) -> None:
    first = shop.events().collect()["timestamp"].min()

    with pytest.raises(InputError, match="too little to learn from"):
        fit.prepare(QUICK, services, shop, first + timedelta(days=9), quiet)  # type: ignore[operator]


def test_the_gate_refuses_what_is_not_better(
    trained: fit.FitSummary, services: Services, shop: Lake
) -> None:
    """A model whose heads know nothing stays a validation fit, and the champion keeps its place."""
    before = champion(connect_redis(services.redis_url))
    poor = QUICK.model_copy(
        update={
            "promote": "gate",
            "ranker": QUICK.ranker.model_copy(update={"popularity_penalty": 1.0}),
        }
    )

    summary = fit.run(poor, services, shop, CUT, quiet)

    assert not summary.promoted
    assert "not surely better" in summary.why
    assert champion(connect_redis(services.redis_url)) == before
    assert json.dumps(summary.table)
