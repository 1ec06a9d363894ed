"""A replay of a time before features or champion is refused: both know its outcome."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reco.campaigns.store import CampaignStore
from reco.embedded import Services
from reco.errors import ConfigError, NotFound
from reco.features.history import cutoff_day
from reco.models.scorer import Scorer
from reco.tables import CHAMPION_KEY, item_keys
from serve.campaign import run
from serve.chunks import Choice, Mode, Request
from serve.past import Past
from serve.scoring import MODEL_LATER
from tests.model_world import artifact_of
from tests.small_world import POPULAR, World, campaign, small_world
from tests.stages import Stages

FEATURES_AT = datetime(2017, 12, 4, tzinfo=UTC)
BEFORE = FEATURES_AT - timedelta(days=1)


@pytest.fixture
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        yield world


def model(world: World, as_of: datetime, directory: Path) -> Scorer:
    """A model that has learned from all before `as_of`, as the champion."""
    artifact = artifact_of(world.catalogue, candidates=20)
    config = replace(artifact.config, as_of_day=cutoff_day(as_of))
    replace(artifact, config=config).save(str(directory))
    named = {"version": directory.name, "directory": str(directory)}
    world.online._redis.set(CHAMPION_KEY, json.dumps(named))
    return Scorer.load(str(directory), world.catalogue)


def recommend(as_of: datetime | None) -> Request:
    return Request(Choice("recommend", 3, as_of=as_of), ["u05"], [""], Mode.RECOMMEND)


def test_later_features_answer_no_replay(world):
    reader = Stages(world).reader

    assert reader.read(recommend(FEATURES_AT)).fallback == ""
    assert reader.read(recommend(None)).fallback == ""
    with pytest.raises(ConfigError, match=r"reco features --as-of 2017-12-03T00:00:00"):
        reader.read(recommend(BEFORE))


def test_a_champion_that_has_learned_later_answers_no_replay(world, tmp_path):
    past = Past(world.online._redis)
    model(world, FEATURES_AT, tmp_path / "then")
    past.check(FEATURES_AT)

    model(world, FEATURES_AT + timedelta(days=1), tmp_path / "later")

    past.check(None)
    with pytest.raises(ConfigError, match=r"reco train --as-of 2017-12-04T00:00:00"):
        past.check(FEATURES_AT)


def test_a_campaign_of_a_time_before_the_features_does_not_start(world, services):
    with pytest.raises(ConfigError, match="reco features"):
        run(campaign("early", as_of=BEFORE), services)

    with pytest.raises(NotFound):
        CampaignStore(world.engine).get("early")


def test_a_replay_is_shown_no_popular_items_of_its_future(world):
    popular = Stages(world).picker._popular

    assert popular.keys(FEATURES_AT).tolist() == item_keys(POPULAR).tolist()
    assert not len(popular.keys(BEFORE))


def test_a_model_of_later_events_scores_no_replay_however_it_was_set(world, tmp_path):
    stages = Stages(world)
    chunk = stages.reader.read(recommend(FEATURES_AT))

    stages.scoring.swap(model(world, FEATURES_AT, tmp_path / "then"))
    then = stages.scoring.score(chunk)
    stages.scoring.swap(model(world, FEATURES_AT + timedelta(days=1), tmp_path / "later"))
    later = stages.scoring.score(chunk)

    assert then.fallback == ""
    assert (then.slates.items != 0).any()
    assert later.fallback == MODEL_LATER
    assert not later.slates.items.any()
