"""Whose slates are shown: those of the model that the Scorer holds, and the record says whose."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from reco.embedded import Services
from reco.features.history import Histories
from reco.models.slates import Reason, Rung, Slates
from reco.models.topk import pack
from reco.tables import CHAMPION_KEY, item_keys, topk_key
from serve.chunks import Choice, Request
from serve.graph import HURRY
from serve.picking import unscored
from tests.small_world import World, campaign, small_world
from tests.stages import Stages

FRESH = [f"item-{n:02d}" for n in range(35, 50)]
LIVE = ["item-30", "item-31", "item-32"]


class Answering:
    """A model that answers LIVE to everyone and notes what it was asked with."""

    def __init__(self, version: str, repeats: bool = True) -> None:
        self.version = version
        self.config = SimpleNamespace(repeats=repeats, as_of_day=0)
        self.asked: list[int] = []

    def score(self, histories: Histories, now: object, k: int, **_: object) -> Slates:
        self.asked += np.diff(histories.offsets).tolist()
        slates = Slates.empty(len(histories), k)
        slates.items[:, :3] = item_keys(LIVE)
        slates.reasons[:, :3], slates.rungs[:, :3] = Reason.CATEGORY, Rung.LIVE
        return slates


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    """u05 bought item-35 to item-39 and has a fresh slate of the champion, "m1"; u06 has none."""
    with small_world(services) as world:
        client = world.online._redis
        client.set(CHAMPION_KEY, json.dumps({"version": "m1", "directory": "/nowhere"}))
        slates = Slates.empty(1, len(FRESH))
        slates.items[0], slates.reasons[:] = item_keys(FRESH), Reason.REPEAT
        client.set(topk_key("u05"), pack(slates, "m1", int(time.time()))[0])
        yield world
        client.delete(CHAMPION_KEY)


@pytest.fixture
def stages(world: World) -> Stages:
    return Stages(world)


def request(users: list[str], **changes: object) -> Request:
    spec = campaign(**changes)
    arms = ["personal"] * len(users)
    return Request(Choice.of(spec), users, arms, campaign=spec.model_dump_json().encode())


def test_fresh_slates_of_the_scorers_own_model_are_used(stages):
    stages.scoring.swap(model := Answering("m1"))

    made = stages.assemble(request(["u05", "u06"]))

    assert made.item_ids == [FRESH[:3], LIVE]
    assert len(model.asked) == 1
    assert made.model_version == "m1"


def test_a_model_that_was_pinned_scores_those_too_who_have_a_slate_of_the_champion(stages):
    stages.scoring.swap(model := Answering("pinned"))

    made = stages.assemble(request(["u05", "u06"], rules={"seen": "keep"}))

    assert made.item_ids == [LIVE, LIVE]
    assert all(model.asked)  # with the histories of both
    assert set(made.records["model"].to_pylist()) == {"pinned"}


def test_a_fresh_slate_with_too_little_left_is_scored_again(stages):
    stages.scoring.swap(Answering("m1"))
    few = {"seen": "drop", "blocked_items": FRESH[7:]}  # item-40 and item-41 are left

    assert stages.assemble(request(["u05"], rules=few)).item_ids == [LIVE]


def test_the_record_names_the_model_of_the_slates_when_no_scorer_was_asked(stages):
    chunk = stages.reader.read(request(["u05"]))
    picked = stages.picker.pick(chunk, unscored(chunk, HURRY))
    nobody = stages.reader.read(request(["u06"]))

    made = stages.maker.make(chunk, picked)
    assert made.item_ids == [FRESH[:3]]
    assert made.records["model"].to_pylist() == ["m1"]
    assert unscored(nobody, HURRY).model_version == ""
    assert stages.assemble(request(["u05"])).model_version == "m1"


def test_a_shop_where_nothing_repeats_stays_one_while_the_scorer_is_away(stages):
    chunk = stages.reader.read(request(["u05"], picks=5))

    before = stages.picker.pick(chunk, unscored(chunk, HURRY))
    stages.scoring.swap(Answering("m1", repeats=False))
    stages.assemble(request(["u06"]))
    after = stages.picker.pick(chunk, unscored(chunk, HURRY))

    assert before.slates.items[0].tolist() == item_keys(FRESH[:5]).tolist()  # nobody knows yet
    assert after.slates.items[0].tolist() == item_keys(FRESH[5:10]).tolist()
