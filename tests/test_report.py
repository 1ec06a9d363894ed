"""The report: every number comes from the ledger and the purchases, and every caveat is said."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.campaigns.delivery import HandOff, Settled, State, Suppressed
from reco.campaigns.ledger import Ledger
from reco.catalogue import Catalogue
from reco.errors import InputError
from reco.experiments.analysis import Metric, analyse
from reco.models.slates import Reason, Rung
from reco.outcomes.bands import Bands
from reco.outcomes.bots import TOUCHES, judge
from reco.outcomes.exposure import gini
from reco.outcomes.plots import ticks
from reco.outcomes.reactions import Reactions
from reco.outcomes.report import build, read_experiment, read_weights, to_html, to_json
from reco.outcomes.wording import amount, gap, lift, p_value, share
from reco.tables import EVENTS, ITEMS

START = datetime(2017, 12, 4, tzinfo=UTC)
CAMPAIGN = {
    "campaign_id": "digest",
    "state": "finished",
    "config": {
        "arms": [
            {"name": "personal", "weight": 0.75, "slate": "model"},
            {"name": "static", "weight": 0.25, "slate": "editorial"},
        ],
        "as_of": "2017-12-04T00:00:00Z",
        "currency": "USD",
    },
}
LATENCIES = pl.DataFrame(
    {"stage": ["score", "assemble"], "p50_ms": [1.5, 9.0], "p95_ms": [4.0, 22.0],
     "p99_ms": [9.0, 40.0], "n": [40, 400], "p95_mail_ms": [0.4, 2.2]}
)  # fmt: skip


def catalogue(n=20):
    items = pl.DataFrame(
        {"item_id": [f"i{i}" for i in range(n)], "stock": [0.0, *[None] * (n - 1)]}
    )
    empty = pl.from_arrow(ITEMS.empty_table())
    return Catalogue.of(pl.concat([empty, items], how="diagonal_relaxed"))


def ledger(personal=300, static=100, unsent=("suppressed", "failed")):
    """Accepted mails of two arms, and one mail of the first arm in each of the unsent states."""
    rows = [
        {"user_id": f"p{i}", "arm": "personal", "state": "accepted",
         "items": [f"i{1 + i % 10}", f"i{1 + (i + 1) % 10}"], "reasons": [Reason.REPEAT] * 2,
         "rung": Rung.FRESH if i % 4 else Rung.POPULAR}
        for i in range(personal)
    ] + [
        {"user_id": f"s{i}", "arm": "static", "state": "accepted", "items": ["i1", "i2"],
         "reasons": [Reason.EDITORIAL] * 2, "rung": Rung.EDITORIAL}
        for i in range(static)
    ] + [
        {"user_id": state, "arm": "personal", "state": state, "items": None, "reasons": None,
         "rung": None}
        for state in unsent
    ]  # fmt: skip
    return pl.DataFrame(
        rows,
        schema={"user_id": pl.String, "arm": pl.String, "state": pl.String,
                "items": pl.List(pl.String), "reasons": pl.List(pl.Int16), "rung": pl.Int16},
    ).with_columns(
        scores=pl.lit(None, pl.List(pl.Float64)),
        size_bytes=pl.when(pl.col("state") == "accepted").then(20_480),
        accepted_at=pl.lit(START + timedelta(days=3_000)),
    )  # fmt: skip


def purchases(last_day=27.5):
    """Two of three personal mails and one of four static ones hit; one buyer knew the item."""
    rows = [(f"p{i}", f"i{1 + i % 10}", 1.0, 3.0) for i in range(300) if i % 3]
    rows += [(f"s{i}", "i1", 2.0, 2.0) for i in range(100) if i % 4 == 0]
    rows += [("p1", "i2", -5.0, 7.0), ("s1", "other", last_day, 1.0)]
    frame = pl.DataFrame(
        [("purchase", u, i, START + timedelta(days=d), v) for u, i, d, v in rows],
        schema=["type", "user_id", "item_id", "timestamp", "value"],
        orient="row",
    )
    return pl.concat([pl.from_arrow(EVENTS.empty_table()), frame], how="diagonal_relaxed").lazy()


def made(**changes):
    parts = {"campaign": CAMPAIGN, "deliveries": ledger(), "purchases": purchases(),
             "latencies": LATENCIES, "catalogue": catalogue(), "replay": True}  # fmt: skip
    return build(**(parts | changes))


def estimates(report, column):
    (result,) = [r for r in report.analysis.results if r.metric.column == column]
    return {a.arm: a.estimate.value for a in result.arms}, result.comparisons


def test_the_metrics_are_what_was_bought():
    report = made()

    assert estimates(report, "any_bought")[0] == {"static": 0.25, "personal": pytest.approx(2 / 3)}
    assert estimates(report, "bought")[0] == {"static": 0.25, "personal": pytest.approx(2 / 3)}
    assert estimates(report, "revenue")[0] == {"static": 0.5, "personal": pytest.approx(2.0)}


def test_the_editorial_arm_is_the_control_and_the_difference_is_against_it():
    report = made()
    (comparison,) = estimates(report, "any_bought")[1]

    assert report.analysis.control == "static"
    assert comparison.arm == "personal"
    assert comparison.comparison.difference.value == pytest.approx(2 / 3 - 1 / 4)
    assert comparison.comparison.difference.low > 0.3
    assert comparison.comparison.lift.value == pytest.approx(8 / 3 - 1)


def test_every_recipient_is_counted_in_one_state():
    states = ("suppressed", "failed", "uncertain", "deferred")
    book = made(deliveries=ledger(unsent=states)).delivery.ledger

    assert book.states == {"accepted": 400} | dict.fromkeys(states, 1)
    assert (book.audience, book.balanced, book.kilobytes_per_mail) == (404, True, 20.0)


def test_a_campaign_under_way_says_so():
    report = made(deliveries=ledger(unsent=("queued", "handing_off", "failed")))

    assert report.delivery.ledger.open == 2
    assert not report.delivery.ledger.balanced
    assert any("2 recipients are still under way" in caution for caution in report.cautions)


def test_a_broken_split_hides_every_comparison_and_says_why():
    report = made(deliveries=ledger(personal=300, static=160))

    assert report.blocked
    assert all(not result.comparisons for result in report.analysis.results)
    assert "sizes that their weights promise" in report.cautions[0]
    assert json.loads(to_json(report))["blocked"] is True
    assert "Against static" not in to_html(report)


def test_mail_lost_in_one_arm_only_breaks_the_split_too():
    """Assignment was fair, but 60 of 160 static mails were never accepted."""
    book = ledger(personal=450, static=150, unsent=())
    lost = (pl.col("arm") == "static") & (pl.col("user_id").str.slice(1).cast(pl.Int64) < 80)
    report = made(deliveries=book.with_columns(
        state=pl.when(lost).then(pl.lit("failed")).otherwise(pl.col("state"))
    ))  # fmt: skip

    assert not report.delivery.assigned_ratio.alarm
    assert report.blocked


def test_a_real_ledger_and_a_real_lake_are_read_as_they_are(engine, lake):
    address = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    users = {f"u{i}": ("personal" if i % 4 else "static") for i in range(40)}
    with Ledger(address) as book:
        book.enqueue("digest", list(users.items()))
        claim = book.claim("digest", 30)
        named = [delivery.user_id for delivery in claim.deliveries]
        mails = [
            HandOff(u, f"<{u}@x>", Rung.LIVE, ["i1"], [0.3], [Reason.REPEAT], 2_048) for u in named
        ]
        book.suppress("digest", claim.fence, [Suppressed(named[0], "message_cap")])
        book.hand_off("digest", claim.fence, mails[1:])
        book.settle("digest", claim.fence, [Settled(u, State.FAILED, "550") for u in named[1:3]])
        book.settle("digest", claim.fence, [Settled(u, State.ACCEPTED, "250") for u in named[3:]])
        rows = book.rows("digest")
    lake.append(purchases().collect().with_columns(
        pl.lit(named[3]).alias("user_id"), event_id=pl.int_range(pl.len()).cast(pl.String)
    ))  # fmt: skip
    report = made(deliveries=rows, purchases=lake.events())

    assert report.delivery.ledger.states == {
        "accepted": 27, "suppressed": 1, "failed": 2, "uncertain": 0, "deferred": 0, "queued": 10,
    }  # fmt: skip
    assert report.delivery.ledger.suppressed == {"message_cap": 1}
    assert sum(report.analysis.units.values()) == 27
    assert report.delivery.exposures[0].rungs == {"live": 1.0}
    assert sum(b.bought for b in report.delivery.bought) == 1
    assert "10 recipients are still under way" in to_html(report)


def test_a_replay_says_that_no_mail_was_read():
    assert any("no mail was really read" in caution for caution in made().cautions)


def test_without_replay_each_window_opens_at_acceptance():
    report = made(replay=False)

    assert report.delivery.window.start is None
    assert estimates(report, "any_bought")[0] == {"static": 0, "personal": 0}
    assert not any("replay" in caution for caution in report.cautions)


def test_a_replay_without_a_time_is_refused():
    with pytest.raises(InputError, match="as_of"):
        made(campaign={"campaign_id": "digest", "config": {}})


def test_a_window_that_was_not_seen_whole_is_said():
    report = made(purchases=purchases(last_day=10))

    assert not report.delivery.window.complete
    assert any("known until 2017-12-14" in caution for caution in report.cautions)
    assert made().delivery.window.complete


def test_repeats_are_told_from_new_items():
    bought = {b.arm: b for b in made().delivery.bought}

    assert (bought["personal"].shown, bought["personal"].known_shown) == (600, 1)
    assert (bought["personal"].bought, bought["personal"].repeats) == (200, 1)


def test_exposure_counts_items_rungs_and_reasons():
    total, static, personal = made().delivery.exposures

    assert [e.arm for e in (total, static, personal)] == ["all arms", "static", "personal"]
    assert (total.mails, total.slots, total.distinct, total.empty) == (400, 800, 10, 0)
    assert total.coverage == pytest.approx(10 / 19)  # one of 20 items is out of stock
    assert personal.rungs == {"fresh": 0.75, "popular": 0.25}
    assert static.reasons == {"editorial": 1.0}
    assert static.curve[-1] == (2, 1.0)


def test_items_that_sold_out_after_the_mail_count_as_mailable():
    book = ledger(unsent=()).with_columns(items=pl.lit(["i0", "gone"], pl.List(pl.String)))
    delivery = made(deliveries=book).delivery

    assert delivery.mailable == 21
    assert delivery.exposures[0].coverage == pytest.approx(2 / 21)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 20))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts, unseen):
    everyone = np.array([*counts, *[0] * unseen], float)
    differences = np.abs(everyone[:, None] - everyone[None, :]).mean()

    assert gini(np.array(counts), len(everyone)) == pytest.approx(
        differences / (2 * everyone.mean()), abs=1e-9
    )


def test_json_has_the_same_numbers_and_no_nan():
    report = made(deliveries=ledger(personal=2, static=1, unsent=()))
    text = to_json(report)
    plain = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    assert plain["delivery"]["ledger"]["audience"] == 3
    assert plain["delivery"]["window"]["start"] == "2017-12-04T00:00:00+00:00"
    assert plain["analysis"]["results"][2]["arms"][0]["estimate"]["low"] is None


class Resources(HTMLParser):
    """Collects whatever a page would fetch or run, and the tags left open."""

    def __init__(self):
        super().__init__()
        self.fetched, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)
        self.fetched += [tag] * (tag in ("script", "link", "img", "iframe", "object"))
        self.fetched += [
            v for k, v in attrs if k in ("src", "href", "srcset") or k.startswith("on")
        ]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing():
    parser = Resources()
    text = to_html(made())
    parser.feed(text)

    assert parser.fetched == []
    assert parser.open == []
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_page_shows_the_numbers_of_the_ledger_and_the_metrics():
    text = to_html(made())
    words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text)).replace("\u00a0", " ")

    assert "66.7 % in personal, against 25.0 % in static" in words
    assert "400 + 1 + 1 + 0 + 0 = 402" in words
    assert "no mail was really read" in words
    assert "lookalike" not in words


def test_names_are_escaped_and_long_ones_cut():
    arms = [{"name": "<b>", "weight": 3}, {"name": "a" * 64, "weight": 1}]
    config = CAMPAIGN["config"] | {"arms": arms}
    renamed = ledger().with_columns(pl.col("arm").replace({"personal": "<b>", "static": "a" * 64}))
    text = to_html(made(campaign=CAMPAIGN | {"config": config}, deliveries=renamed))

    assert "<b>" not in text
    assert f">{'a' * 13}…<" in text


@pytest.mark.parametrize(
    "deliveries",
    [ledger(0, 0, ()), ledger(0, 0), ledger(1, 0), ledger(1, 1), ledger(5, 0, ("queued",))],
    ids=["nobody", "nobody accepted", "one mail", "one mail an arm", "control got none"],
)
def test_a_report_of_almost_nothing_is_still_a_page(deliveries):
    report = made(
        deliveries=deliveries, latencies=None, purchases=purchases().filter(pl.lit(False))
    )

    assert "</html>" in to_html(report)
    assert json.loads(to_json(report))["title"] == "digest"


def test_whoever_is_outside_of_the_experiment_is_counted_and_not_compared():
    kept = pl.when(pl.int_range(pl.len()) < 20).then(pl.lit("holdout")).otherwise(pl.col("arm"))
    report = made(deliveries=ledger(unsent=()).with_columns(arm=kept), replay=False)

    assert {"static", "personal"} == report.analysis.units.keys()
    assert sum(report.analysis.units.values()) == 380
    assert report.delivery.ledger.audience == 400
    assert any("20 recipients of the holdout" in caution for caution in report.cautions)
    assert not report.blocked


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (0, ["The windows are still open: that of clicks until 2026-", "at least 14 days"]),
        (20, ["The windows are still open"]),
        (40, []),
    ],
)
def test_a_report_says_that_it_is_too_early(days, said):
    sent = ledger(unsent=())["accepted_at"].max()
    cautions = made(
        deliveries=ledger(unsent=()), replay=False, now=sent + timedelta(days=days, minutes=3)
    ).cautions

    early = [c for c in cautions if "still open" in c or "14 days" in c]
    assert len(said) == len(early)
    assert all(words in caution for words, caution in zip(said, early, strict=True))


def test_a_report_states_the_size_that_its_first_metric_needs():
    """Control 25 % of 100: a lift of 10 % needs 2 (2.80)² p (1 - p) / (p / 10)² = 4,710 units."""
    report = made()

    size = report.analysis.results[0].size
    assert size.needed == pytest.approx(4_710, rel=0.02)
    assert not any("units an arm" in c for c in report.cautions)  # a replay is no experiment


# Plain files


def test_a_plain_file_is_read_as_an_experiment(tmp_path):
    rng = np.random.default_rng(1)
    file = tmp_path / "subject_line.csv"
    pl.DataFrame(
        {"unit": range(2_000), "arm": ["a", "b"] * 1_000,
         "clicked": rng.random(2_000) < np.tile([0.1, 0.2], 1_000),
         "revenue": rng.exponential(2, 2_000)}
    ).write_csv(file)  # fmt: skip
    report = read_experiment(file, weights={"a": 1, "b": 1})
    clicked, revenue = report.analysis.results

    assert (report.title, report.analysis.control) == ("subject_line", "a")
    assert (clicked.metric.kind, revenue.metric.kind) == ("share", "number")
    assert clicked.comparisons[0].comparison.difference.low > 0
    assert clicked.comparisons[0].q_value is None
    assert revenue.comparisons[0].q_value == pytest.approx(
        revenue.comparisons[0].comparison.p_value
    )
    assert "Experiment report" in to_html(report)
    assert any(f"needs {clicked.size.needed:,} units an arm" in c for c in report.cautions)


def test_weights_given_for_a_plain_file_check_its_split(tmp_path):
    file = tmp_path / "lost.csv"
    rows = [(i, "a" if i < 1_000 else "b", i % 3) for i in range(1_800)]
    pl.DataFrame(rows, schema=["unit", "arm", "x"], orient="row").write_csv(file)

    assert read_experiment(file, weights=read_weights("a=1, b=1")).blocked
    assert not read_experiment(file, weights=read_weights("a=5,b=4")).blocked
    assert read_weights(None) is None
    with pytest.raises(InputError, match="'a:1'"):
        read_weights("a:1")


def test_several_rows_of_a_unit_widen_the_interval():
    """1,000 mails to 50 readers are not 1,000 independent mails."""
    rng = np.random.default_rng(2)
    taste = rng.beta(0.5, 2, 100).repeat(20)
    frame = pl.DataFrame(
        {"unit": np.arange(100).repeat(20), "arm": np.tile(["a", "b"], 50).repeat(20),
         "clicked": rng.random(2_000) < taste}
    )  # fmt: skip
    alone = frame.with_columns(unit=pl.int_range(2_000))
    wide, narrow = (
        analyse(f, [Metric("clicked", "clicks a mail", "share")]).results[0].arms[0].estimate
        for f in (frame, alone)
    )

    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_several_treated_arms_share_the_risk_of_chance():
    rng = np.random.default_rng(3)
    frame = pl.DataFrame(
        {"unit": range(900), "arm": ["control", "x", "y"] * 300, "spent": rng.normal(5, 1, 900)}
    )
    (result,) = analyse(frame).results
    p_values = [c.comparison.p_value for c in result.comparisons]

    assert max(c.q_value for c in result.comparisons) == pytest.approx(max(p_values))
    assert all(c.q_value >= p for c, p in zip(result.comparisons, p_values, strict=True))


def test_a_missing_label_is_left_out_and_not_zero():
    frame = pl.DataFrame(
        {"unit": [1, 2, 3, 4], "arm": ["a", "a", "b", "b"], "x": [2.0, None, 4, 6]}
    )
    first, second = analyse(frame).results[0].arms

    assert (first.units, first.estimate.value) == (1, 2.0)
    assert (second.units, second.estimate.value) == (2, 5.0)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"unit": [1], "x": [1.0]}, "lacks the column arm"),
        ({"unit": [1], "arm": ["a"], "note": ["hm"]}, "no metric"),
        ({"unit": [1, 1], "arm": ["a", "b"], "x": [1.0, 2.0]}, "1 units are in more than one arm"),
        ({"unit": [], "arm": [], "x": []}, "no rows"),
    ],
)
def test_files_that_are_no_experiment_are_refused(frame, said):
    with pytest.raises(InputError, match=said):
        analyse(pl.DataFrame(frame))


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_experiment(tmp_path / "missing.csv")


def test_an_unknown_control_is_refused():
    with pytest.raises(InputError, match="no arm 'c'"):
        analyse(pl.DataFrame({"unit": [1], "arm": ["a"], "x": [1.0]}), control="c")


# Words and drawings


def test_numbers_read_as_people_write_them():
    said = [
        amount(0.31249, "share", ""), amount(1234.5, "money", "EUR"), amount(2.5, "money", "PLN"),
        amount(math.nan, "number", ""), gap(-0.0312, "share", ""), gap(1.5, "money", "USD"),
        lift(0.405), lift(-0.043), share(0.00003, 2), p_value(0.00001), p_value(None),
    ]  # fmt: skip

    assert [text.replace("\u00a0", " ") for text in said] == [
        "31.2 %", "€1,234.50", "2.50 PLN", "–", "−3.12 pp", "+$1.50", "+40 %", "−4.3 %",
        "< 0.01 %", "< 0.001", "–",
    ]  # fmt: skip


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_axes_span_the_data_and_zero_in_few_steps(one, other):
    low, high = sorted((one, other))
    steps = ticks(low, high)
    slack = 1e-9 * (steps[-1] - steps[0])

    assert 2 <= len(steps) <= 7
    assert steps[0] <= min(low, 0) + slack
    assert steps[-1] >= max(high, 0) - slack


SECOND = timedelta(seconds=1)


def reactions(clicks=120, programs=40):
    """Half of the readers are followed; some click, and programs click on other mails."""
    sent = START + timedelta(days=3_000)
    rows = [
        {"type": "click", "delivery_id": f"p{i}", "slot": 0, "timestamp": sent + timedelta(hours=1)}
        for i in range(clicks)
    ] + [
        {"type": "click", "delivery_id": f"p{i}", "slot": j, "timestamp": sent + SECOND}
        for i in range(clicks, clicks + programs)
        for j in range(2)
    ]  # fmt: skip
    plain = {"event_id": "e", "campaign_id": "digest", "accepted_at": sent, "links": 2}
    raw = pl.DataFrame([dict.fromkeys(TOUCHES) | plain | row for row in rows], schema=TOUCHES)
    harm = pl.DataFrame(
        [("unsubscribe", f"p{i}") for i in range(60)], schema=["type", "delivery_id"], orient="row"
    )
    followed = {f"p{i}" for i in range(240)} | {f"s{i}" for i in range(80)}
    return Reactions(judge(raw), harm, followed)


def test_the_ctr_counts_persons_of_those_who_agreed_and_says_what_it_left_out():
    report = made(reactions=reactions())

    personal = next(r for r in report.delivery.responses if r.arm == "personal")
    assert (300, 240, 120, 160) == (
        personal.mails, personal.tracked, personal.clicked, personal.clicked_raw
    )  # fmt: skip
    assert {"personal": 0.5, "static": 0.0} == estimates(report, "clicked")[0]
    assert estimates(report, "clicked_raw")[0]["personal"] == pytest.approx(2 / 3)
    assert {"sweep": 80, "hasty": 80} == report.delivery.programs
    assert "Clicks left out" in to_html(report)


def test_mails_of_single_sends_count_for_their_users():
    keyed = pl.col("user_id") + pl.lit("\x1forder-7")
    plain = reactions()
    touched = plain.touches.with_columns(pl.col("delivery_id") + pl.lit("\x1forder-7"))
    twice = pl.concat([ledger(), ledger(unsent=()).with_columns(keyed)])

    once = made(reactions=plain)
    report = made(deliveries=twice, reactions=replace(plain, touches=touched))

    assert report.delivery.assigned_ratio == once.delivery.assigned_ratio
    assert report.analysis == once.analysis
    assert [r.tracked for r in report.delivery.responses] == [
        2 * r.tracked for r in once.delivery.responses
    ]


def test_harm_above_the_control_stands_in_the_report():
    report = made(reactions=reactions())

    found = [g for g in report.delivery.guardrails if g.harmful]
    assert {("unsubscribe", "ceiling"), ("unsubscribe", "static")} == {
        (g.name, g.against) for g in found
    }
    assert "too high" in to_html(report)


def test_numbers_outside_their_band_are_named():
    narrow = Bands(latency_p95_ms=1, coverage_floor=0.9, fallback_ceiling=0.1)

    found = {a.name for a in made(bands=narrow).alerts}

    assert {"latency of assemble", "coverage", "fallback of personal"} == found
    assert () == made().alerts


def test_scores_are_held_to_what_was_bought():
    scored = ledger().with_columns(
        scores=pl.when(pl.col("arm") == "personal").then(pl.lit([0.6, 0.1]))
    )
    found = made(deliveries=scored, bands=Bands(calibration_ceiling=0.05))

    assert found.delivery.calibration.expected == pytest.approx(0.35)
    assert found.delivery.calibration.seen == pytest.approx(200 / 600)
    assert "calibration" in {a.name for a in found.alerts}
    assert "Scores kept" in to_html(found)
