"""Which recommender serves, and that a simple one really does: from its artifact, by the Scorer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reco.models.artifact import Artifact
from reco.models.calibration import Calibration
from reco.models.plain import NAMES, Chosen
from reco.models.rivals import rival
from reco.models.scorer import Scorer
from reco.models.slates import Reason, Rung
from tests.model_world import DAY, artifact_of, catalogue_of, histories_of
from tests.test_scorer import NOW, had
from train.choice import MODEL, NOBODY, choose, led
from train.config import TrainConfig
from train.evaluate import FREQUENCY, Verdict

CATALOGUE = catalogue_of(300)
HISTORIES = histories_of(CATALOGUE, [0, 3, 20, 60])
ALL = np.ones(len(CATALOGUE), bool)
CONFIG = TrainConfig()
NDCG = {MODEL: 0.3, "popular-7d": 0.1, "popular-28d": 0.2, FREQUENCY: 0.29, "content": 0.1}


def verdict(passed: bool, champion: tuple[float, float, float] | None = None) -> Verdict:
    table = {name: {"ndcg": ndcg} for name, ndcg in NDCG.items()}
    lead = {name: (0.3 - ndcg, 0.29 - ndcg, 0.31 - ndcg) for name, ndcg in NDCG.items()}
    differences = lead | ({"champion": champion} if champion else {})
    return Verdict(table, differences, passed, "not surely better in NDCG than x", 9, 0.0)


def test_a_model_that_is_surely_better_serves() -> None:
    assert choose(verdict(True), CONFIG, 200, 5_000, False).name == MODEL


def test_a_small_shop_is_served_by_what_led_the_simple_ones_and_says_why() -> None:
    choice = choose(verdict(False), CONFIG, 200, 5_000, False)

    assert choice.name == "frequency" == led(verdict(False))
    assert choice.why.startswith("not surely better in NDCG than x; frequency serves")
    assert "200 subscribers" in choice.why


def test_below_the_data_floor_no_model_is_trusted() -> None:
    choice = choose(verdict(True), CONFIG, 200, 999, False)

    assert choice.name == "frequency"
    assert choice.why.startswith("only 999 events of the target")


def test_a_large_shop_waits_for_a_model_that_is_better() -> None:
    assert choose(verdict(False), CONFIG, 50_000, 10**7, False).name == NOBODY


def test_a_model_that_serves_gives_way_only_to_what_surely_beats_it() -> None:
    kept = choose(verdict(False), CONFIG, 200, 5_000, True)
    beaten = choose(verdict(False, (0.2, 0.19, 0.21)), CONFIG, 200, 5_000, True)

    assert (kept.name, beaten.name) == (NOBODY, "frequency")
    assert kept.why.endswith("the champion stays")


@pytest.mark.parametrize("name", NAMES)
def test_a_simple_recommender_serves_from_the_artifact(name: str, tmp_path: Path) -> None:
    simple = rival(name, HISTORIES, CATALOGUE, ALL, DAY, 1, True)
    chosen = Chosen(simple.plain, Calibration(0.5, -3.0), "few events")
    replace(artifact_of(CATALOGUE), chosen=chosen).save(str(tmp_path / "v1"))
    allowed = np.arange(len(CATALOGUE)) % 2 == 0

    assert (loaded := Artifact.load(str(tmp_path / "v1")).chosen) is not None
    assert (loaded.plain.name, loaded.calibration, loaded.why) == (
        name, chosen.calibration, "few events",
    )  # fmt: skip
    scorer = Scorer.load(str(tmp_path / "v1"), CATALOGUE)
    slates = scorer.score(HISTORIES, NOW, 5, allowed=allowed)
    expected = simple.score(HISTORIES, NOW, 5, allowed=allowed)
    scores = simple.plain.scores(simple.bags(HISTORIES, DAY))

    assert slates.rungs[:, 0].tolist() == [Rung.LOOKALIKE, Rung.LIVE, Rung.LIVE, Rung.LIVE]
    assert ((slates.scores > 0) & (slates.scores < 1)).all()
    assert allowed[CATALOGUE.index.rows(slates.items)].all()
    for user in (2, 3):  # warm: nothing is mixed in
        mine, theirs = (
            scores[user, CATALOGUE.index.rows(s.items[user])] for s in (slates, expected)
        )
        assert mine.tolist() == theirs.tolist()  # the same items, but for equals
        seen = [item in had(HISTORIES, user) for item in slates.items[user].tolist()]
        assert seen == (slates.reasons[user] == Reason.REPEAT).tolist()


def test_a_simple_recommender_leaves_out_what_they_had_where_asked() -> None:
    simple = rival("frequency", HISTORIES, CATALOGUE, ALL, DAY, 1, True)
    chosen = Chosen(simple.plain, Calibration(), "")
    scorer = Scorer(replace(artifact_of(CATALOGUE), chosen=chosen), CATALOGUE, "v")

    slates = scorer.score(HISTORIES, NOW, 5, novel_only=True)

    for user in range(len(HISTORIES)):
        assert not had(HISTORIES, user) & set(slates.items[user].tolist())
