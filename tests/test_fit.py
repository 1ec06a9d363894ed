"""The train stage on the slice of the demo shop, through a real Ray, PostgreSQL.

Redis and MLflow.
"""

import os
import shutil
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services, connect_redis
from reco.errors import InputError, NotFound
from reco.events.completejourney import convert
from reco.events.importing import import_table
from reco.events.lake import Lake
from reco.models.artifact import Artifact
from reco.models.plain import NAMES
from reco.models.registry import Champion, champion
from reco.models.scorer import Scorer
from train import fit
from train.choice import Choice, serve_instead
from train.config import TrainConfig
from train.evaluate import FITTED, FREQUENCY
from train.examples import Job, materialise, read_shard
from train.plan import prepare

CUT = datetime(2017, 12, 4, tzinfo=UTC)
SLICE = Path(__file__).parent / "data" / "completejourney_slice"
QUICK = TrainConfig.model_validate(
    {
        "ranker": {"repeat_dates": 1, "explore_dates": 2, "epochs": 2},
        "tower": {"dim": 32},
        "promote": "always",
    }
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
def trained(services: Services, ray_cluster: None, shop: Lake) -> fit.FitSummary:
    return fit.run(QUICK, services, shop, CUT, quiet)


def test_the_stock_settings_are_those_of_the_file() -> None:
    from train.config import load_config

    assert load_config(Path(__file__).parent.parent / "configs" / "train.yaml") == TrainConfig()


def test_the_model_beats_the_simple_rivals(trained: fit.FitSummary) -> None:
    ndcg = {name: row["ndcg"] for name, row in trained.table.items()}

    assert set(ndcg) == {"model", "popular-7d", "popular-28d", FREQUENCY, *FITTED}
    # These settings learn quickly, for the tests; the gate with the stock ones asks more.
    assert ndcg["model"] > max(ndcg[name] for name in ("popular-7d", "popular-28d", FREQUENCY))
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
    history = client.get_metric_history(version.run_id or "", "repeat_loss")

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
    plan = prepare(QUICK, services, shop, CUT, quiet)
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

        checkpoints.Reporter.epoch = dying  # type: ignore[method-assign,assignment]
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
    assert contents(plan.job.directory) == contents(f"{trained.directory}-validation")


def contents(directory: str) -> dict[str, bytes]:
    """All files of a model: same data and seed, same bytes; so it recommends the same."""
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@pytest.mark.slow
def test_two_workers_learn_what_one_does(
    trained: fit.FitSummary, services: Services, shop: Lake
) -> None:
    plan = prepare(QUICK.model_copy(update={"workers": 2}), services, shop, CUT, quiet)

    fit.fit(plan.job, "two workers", quiet)

    ndcg = fit.gate(plan, services, shop, None, quiet).table["model"]["ndcg"]
    assert ndcg == pytest.approx(trained.table["model"]["ndcg"], abs=0.01)  # of few subscribers


def test_what_comes_later_changes_no_example(ray_cluster: None, shop: Lake, tmp_path: Path) -> None:
    """Same examples and seed, same model: a run learns nothing from after its time."""
    as_of = CUT - timedelta(days=28)
    events = shop.events().collect()
    past, later = (
        events.filter(pl.col("timestamp") < as_of),
        events.filter(pl.col("timestamp") >= as_of),
    )
    assert len(later) > 1_000
    columns = ("user_id", "item_id", "value", "timestamp")
    other = Lake(str(tmp_path / "lake"))
    other.write_items(shop.items())
    other.append(
        pl.concat([later.with_columns(pl.col(c).shuffle(i) for i, c in enumerate(columns)), past])
    )

    one, two = (
        materialise(Job(lake, None, "leak", as_of, "purchase", 4.0), quiet)
        for lake in (shop, other)
    )

    histories = [
        [read_shard(lake, s.path) for s in shards] for lake, shards in ((shop, one), (other, two))
    ]
    assert len(one) == len(two) == shop.buckets
    for a, b in zip(*histories, strict=True):
        assert a.records.tobytes() == b.records.tobytes()
        assert a.offsets.tobytes() == b.offsets.tobytes()


def test_a_lake_without_events_says_what_to_do(services: Services, lake: Lake) -> None:
    with pytest.raises(NotFound, match="reco import"):
        fit.run(QUICK, services, lake, CUT, quiet)


def test_too_short_a_history_is_refused(services: Services, ray_cluster: None, shop: Lake) -> None:
    first = shop.events().collect()["timestamp"].min()

    with pytest.raises(InputError, match="too little to learn from"):
        prepare(QUICK, services, shop, first + timedelta(days=9), quiet)  # type: ignore[operator,arg-type]


def test_where_no_model_is_surely_better_a_simple_recommender_serves(
    trained: fit.FitSummary, services: Services, shop: Lake, tmp_path: Path
) -> None:
    """A model that shuns what is popular; what led the simple ones serves in its place."""
    model = Artifact.load(f"{trained.directory}-validation")
    poor, final = str(tmp_path / "poor"), str(tmp_path / "final")
    replace(model, config=replace(model.config, popularity_penalty=1.0)).save(poor)
    plan = prepare(QUICK, services, shop, CUT, quiet)
    plan = replace(plan, job=replace(plan.job, directory=poor))

    found = fit.gate(plan, services, shop, None, quiet)
    kept = fit.gate(plan, services, shop, Champion(trained.version, trained.directory), quiet)

    assert found.passed
    assert found.serves in NAMES
    assert "not surely better" in found.why
    assert f"{found.serves} serves" in found.why
    assert not kept.passed
    assert kept.why.endswith("the champion stays")  # it is a model, and cannot be judged
    shutil.copytree(trained.directory, final)
    serve_instead(plan, poor, final, Choice(found.serves, found.why))
    scorer = Scorer.load(final, Catalogue.of(shop.items()))
    assert scorer.artifact.chosen is not None
    assert (scorer.artifact.chosen.plain.name, scorer.artifact.chosen.why) == (
        found.serves, found.why,
    )  # fmt: skip
    slates = scorer.score(plan.histories.take(0, 20), CUT, 5)
    assert ((slates.scores > 0) & (slates.scores < 1)).all()
