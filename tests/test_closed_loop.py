"""What was put into simulated readers comes out of the report, within its intervals."""

import polars as pl
import pytest

from reco.catalogue import Catalogue
from reco.outcomes.reactions import Reactions
from reco.outcomes.report import build
from reco.tables import ITEMS
from tests.simulator import CAMPAIGN, World, simulate

SEEDS = 100
READERS = 1_000
LIFTED = World(click={"control": 0.08, "personal": 0.16}, buy={"control": 0.1, "personal": 0.2})
EQUAL = World(click={"control": 0.1, "personal": 0.1}, buy={"control": 0.1, "personal": 0.1})


def catalogue():
    items = pl.DataFrame({"item_id": [f"i{k}" for k in range(60)]})
    return Catalogue.of(
        pl.concat([pl.from_arrow(ITEMS.empty_table()), items], how="diagonal_relaxed")
    )


CATALOGUE = catalogue()


def report(world, seed, readers=READERS):
    ledger, events, followed = simulate(world, seed, readers)
    reactions = Reactions.of("simulated", ledger, events.lazy(), followed)
    return build(
        CAMPAIGN, ledger, events.lazy(), None, CATALOGUE, replay=False, reactions=reactions
    )


def differences(found):
    return {
        result.metric.column: result.comparisons[0].comparison.difference
        for result in found.analysis.results
    }


@pytest.mark.slow
def test_the_true_lift_is_within_the_interval_in_93_of_100_worlds():
    covered = {"clicked": 0, "any_bought": 0}
    for seed in range(SEEDS):
        found = differences(report(LIFTED, seed))
        for what in covered:
            covered[what] += found[what].low <= LIFTED.lift(what) <= found[what].high

    assert min(covered.values()) >= 93, covered


@pytest.mark.slow
def test_no_lift_is_found_where_there_is_none():
    wrong = dict.fromkeys(("clicked", "any_bought", "household_revenue"), 0)
    for seed in range(SEEDS):
        found = differences(report(EQUAL, seed))
        for what in wrong:
            wrong[what] += not found[what].low <= 0 <= found[what].high

    assert max(wrong.values()) <= 9, wrong


def test_programs_are_left_out_of_the_ctr_and_proxies_out_of_everything():
    world = World(click={"control": 0.1, "personal": 0.1}, buy=EQUAL.buy, bots=0.5)

    found = report(world, 1, 3_000).delivery

    for response in found.responses:
        assert response.clicked / response.tracked == pytest.approx(0.1, abs=0.02)
        assert response.clicked_raw / response.tracked == pytest.approx(0.55, abs=0.04)
        assert response.opened_by["apple"] > response.opened_by["direct"]
    assert {"trap", "burst"} <= found.programs.keys()


def test_bounces_are_in_the_guardrails_and_nowhere_else():
    found = report(World(LIFTED.click, LIFTED.buy, bounce=0.3), 2)

    states = found.delivery.ledger.states
    assert states["failed"] + states["accepted"] == READERS
    assert sum(found.analysis.units.values()) == states["accepted"]
    assert any(g.harmful for g in found.delivery.guardrails if g.name == "bounce")
