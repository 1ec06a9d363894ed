from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from reco.errors import InputError
from reco.events.lake import Lake
from reco.tables import RECOMMENDATIONS
from tests.model_world import DAY, START, artifact_of, catalogue_of, small_lake
from train import recommend
from train.offers import rank_offers, read_ids, read_offers

CATALOGUE = catalogue_of(400)
CUT = START + timedelta(days=DAY)
pytestmark = pytest.mark.usefixtures("ray_cluster")


def quiet(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> recommend.Question:
    """To a model of random weights: what is asked matters here, not how good the answer is."""
    folder = tmp_path_factory.mktemp("recommend")
    artifact_of(CATALOGUE).save(str(folder / "v1"))
    lake = small_lake(folder / "lake", CATALOGUE)
    return recommend.Question(lake, None, str(folder / "v1"), 20, CUT)


def test_everybody_gets_twenty_ranked_items(question: recommend.Question, tmp_path: Path) -> None:
    out = tmp_path / "recs.parquet"

    summary = recommend.run(question, "all", out, quiet)

    table = pl.read_parquet(out)
    assert pq.read_schema(out).equals(RECOMMENDATIONS, check_metadata=False)
    assert summary.users == table["user_id"].n_unique() == 40
    assert (table.group_by("user_id").len()["len"] == 20).all()
    assert table.select("user_id", "item_id").is_unique().all()
    for _, rows in table.group_by("user_id", maintain_order=True):
        assert rows["rank"].to_list() == list(range(1, 21))
        assert (np.diff(rows["score"].to_numpy()) <= 0).all()


def test_what_comes_later_changes_no_byte(question: recommend.Question, tmp_path: Path) -> None:
    """Every event after the cut is given to another subscriber, item and moment."""
    recommend.run(question, "all", tmp_path / "one.parquet", quiet)
    events = question.lake.events().collect()
    later, past = (
        events.filter(pl.col("timestamp") >= CUT),
        events.filter(pl.col("timestamp") < CUT),
    )
    assert len(later) > 50
    columns = ("user_id", "item_id", "timestamp")
    shuffled = later.with_columns(pl.col(c).shuffle(i) for i, c in enumerate(columns))
    other = Lake(str(tmp_path / "lake"))
    other.write_items(CATALOGUE.frame)
    other.append(pl.concat([past.sample(fraction=1, shuffle=True, seed=4), shuffled]))
    changed = recommend.Question(other, None, question.directory, 20, CUT)

    recommend.run(changed, "all", tmp_path / "two.parquet", quiet)

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_time_before_the_models_own_is_warned_of(
    question: recommend.Question, tmp_path: Path
) -> None:
    earlier = replace(question, as_of=CUT - timedelta(days=1))

    with capture_logs() as logs:
        recommend.run(earlier, ["u007"], tmp_path / "recs.parquet", quiet)
        recommend.run(question, ["u007"], tmp_path / "recs.parquet", quiet)

    warnings = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert warnings == ["the model has learned from events after --as-of"]


def test_only_the_items_and_users_that_were_asked_for(
    question: recommend.Question, tmp_path: Path
) -> None:
    some = frozenset(CATALOGUE.item_ids[::3].tolist())
    asked = recommend.Question(
        question.lake, None, question.directory, 5, CUT, items=some, novel_only=True
    )

    recommend.run(asked, ["u007", "nobody"], tmp_path / "recs.parquet", quiet)

    table = pl.read_parquet(tmp_path / "recs.parquet")
    history = question.lake.events(before=CUT).filter(pl.col("user_id") == "u007").collect()
    assert set(table["user_id"]) == {"u007", "nobody"}  # who is unknown gets what is popular
    assert set(table["item_id"]) <= some
    mine = table.filter(pl.col("user_id") == "u007")
    assert not set(mine["item_id"]) & set(history["item_id"])


def test_another_recommender_can_be_asked(question: recommend.Question, tmp_path: Path) -> None:
    """`--by frequency`: what they took, and nothing of the model."""
    asked = replace(question, by="frequency", k=3)

    summary = recommend.run(asked, ["u007"], tmp_path / "by.parquet", quiet)

    history = question.lake.events(before=CUT).filter(pl.col("user_id") == "u007").collect()
    table = pl.read_parquet(tmp_path / "by.parquet")
    assert summary.model == "frequency"
    assert len(table) == 3
    assert set(table["item_id"]) <= set(history["item_id"])
    assert set(table["reason"]) == {"repeat"}


def test_offers_are_ranked_by_what_the_subscriber_takes_of_them(
    question: recommend.Question, tmp_path: Path
) -> None:
    mine = question.lake.events(before=CUT).filter(pl.col("user_id") == "u007").collect()
    had = mine["item_id"].unique().sort().to_list()
    never = [item for item in CATALOGUE.item_ids.tolist() if item not in had]
    held = [had[0], had[1], had[2], never[0], "unknown"]
    offers = pl.DataFrame({"offer_id": ["two", "two", "one", "new", "none"], "item_id": held})
    asked = recommend.Question(question.lake, None, question.directory, 4, CUT, offers=offers)

    recommend.run(asked, ["u007"], tmp_path / "offers.parquet", quiet)

    ranked = pl.read_parquet(tmp_path / "offers.parquet")
    assert ranked["item_id"].to_list() == ["two", "one", "new", "none"]
    assert ranked["score"].is_between(0, 1).all()


def test_an_offer_that_everybody_takes_says_less_of_one_subscriber() -> None:
    offers = pl.DataFrame({"offer_id": ["a", "b"], "item_id": ["x", "y"], "taken": [5_000, 50]})
    had = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["x", "y"], "count": [3, 3]})
    scores = {"score": [0.5, 0.2], "reason": ["repeat", "category"]}
    items = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["x", "y"]} | scores)

    ranked = rank_offers(items, had, offers, ["u", "v"], 2)

    assert ranked.filter(pl.col("user_id") == "u")["item_id"].to_list() == ["b", "a"]
    assert ranked.filter(pl.col("user_id") == "v")["item_id"].to_list() == ["a", "b"]  # popular
    assert ranked["reason"].to_list() == ["category", "repeat", "popular", "popular"]


def test_the_chance_of_an_offer_is_that_of_any_of_its_items() -> None:
    offers = pl.DataFrame({"offer_id": ["a", "a"], "item_id": ["x", "y"], "taken": [9, 9]})
    scores = {"score": [0.5, 0.2], "reason": ["repeat", "category"]}
    items = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["x", "y"]} | scores)
    nothing = pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "count": pl.UInt32})

    ranked = rank_offers(items, nothing, offers, ["u"], 2)

    assert ranked["score"].to_list() == pytest.approx([0.6])


def test_items_that_nobody_knows_are_refused(question: recommend.Question, tmp_path: Path) -> None:
    asked = recommend.Question(
        question.lake, None, question.directory, 5, CUT, items=frozenset(["?"])
    )

    with pytest.raises(InputError, match="nothing to recommend"):
        recommend.run(asked, "all", tmp_path / "recs.parquet", quiet)

    assert list(tmp_path.iterdir()) == []


def test_ids_come_from_text_csv_or_parquet(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\nb\n\na\n")
    (tmp_path / "ids.csv").write_text("user_id,x\n1,2\n3,4\n")
    pl.DataFrame({"user_id": [7]}).write_parquet(tmp_path / "ids.parquet")

    assert read_ids(tmp_path / "ids.txt", "user_id") == ["a", "b"]
    assert read_ids(tmp_path / "ids.csv", "user_id") == ["1", "3"]
    assert read_ids(tmp_path / "ids.parquet", "user_id") == ["7"]
    with pytest.raises(InputError, match="offer_id"):
        read_offers(tmp_path / "ids.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", None), ("a.csv", b""), ("a.csv", b"\xff\x00"), ("a.txt", None), ("a.txt", b"\n"),
     ("a.txt", b"\xff\xfe"), ("a.parquet", None), ("a.parquet", b""), ("a.parquet", b"PAR1")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_error(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=name):
        read_ids(tmp_path / name, "user_id")
    if not name.endswith(".txt"):
        with pytest.raises(InputError, match=name):
            read_offers(tmp_path / name)
