"""Stock at scoring: what sells out is offered no more, without a restart."""

import polars as pl
import pytest

from reco.catalogue import Catalogue
from reco.events.lake import Lake
from reco.models.slates import Rung
from reco.rules.caps import Caps
from reco.tables import item_keys
from serve.chunks import Choice, Mode, Request
from serve.picking import Picker
from serve.shelf import Shelf
from tests.small_world import POPULAR, campaign, items, small_world
from tests.stages import Stages


@pytest.fixture
def now(monkeypatch):
    monkeypatch.setattr("serve.shelf.LOOK_S", 0.0)


def shop(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.write_items(items())
    return lake, Catalogue.of(lake.items())


def stock(lake, **left):
    lake.write_items(pl.DataFrame({"item_id": list(left), "stock": list(left.values())}))


def test_the_stock_follows_the_lake_and_the_rest_stays(tmp_path, now):
    lake, catalogue = shop(tmp_path)
    shelf = Shelf(lake, catalogue)
    before = shelf.in_stock()

    stock(lake, **{"item-03": 0.0, "item-59": 7.0, "new": 3.0})
    after = shelf.in_stock()

    assert before is catalogue.in_stock
    changed = catalogue.item_ids[before != after].tolist()
    assert ["item-03", "item-59"] == changed
    assert after is shelf.in_stock()  # nothing was written since


def test_a_lake_that_is_away_leaves_the_stock_as_it_was(tmp_path, now, monkeypatch):
    lake, catalogue = shop(tmp_path)
    shelf = Shelf(lake, catalogue)
    stock(lake, **{"item-03": 0.0})
    monkeypatch.setattr(Lake, "items", lambda self: (_ for _ in ()).throw(OSError("away")))

    assert (catalogue.in_stock == shelf.in_stock()).all()


def test_what_sells_out_is_offered_no_more(services, now):
    with small_world(services) as world:
        stages = Stages(world)
        lake, client = Lake(services.lake), world.online._redis
        shelf = Shelf(lake, world.catalogue)
        stages.picker = Picker(world.catalogue, world.online, Caps(client), shelf)
        spec = campaign()
        body = spec.model_dump_json().encode()
        request = Request(Choice.of(spec), ["u05"], ["personal"], Mode.CHECK, body)
        before = stages.assemble(request)
        stock(lake, **{POPULAR[0]: 0.0})
        after = stages.assemble(request)

    assert POPULAR[0] == before.item_ids[0][0]
    assert POPULAR[0] not in after.item_ids[0]
    assert item_keys([POPULAR[1]])[0] == after.slates.items[0, 0]
    assert (after.slates.rungs == Rung.POPULAR).all()
