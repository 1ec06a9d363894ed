"""Persons and programs told apart, on a labelled set: listed agents, simulated timing."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from crawleruseragents import CRAWLER_USER_AGENTS_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from reco.outcomes import bots
from reco.outcomes.bots import TOUCHES, TRAP_SLOT, Networks, judge, touches

ACCEPTED = datetime(2026, 3, 2, 9, tzinfo=UTC)
BROWSERS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    f"Chrome/{v}.0.0.0 Safari/537.36"
    for v in range(120, 140)
] + [
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/18.3 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/132.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) "
    "SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36",
]
CHROME = BROWSERS[0]


def touch(**changes):
    plain = {
        "event_id": "e", "type": "click", "timestamp": ACCEPTED + timedelta(hours=2),
        "campaign_id": "c", "delivery_id": "d", "slot": 0, "user_agent": CHROME,
        "address": "203.0.113.0/24", "method": "GET", "accepted_at": ACCEPTED, "links": 3,
    }  # fmt: skip
    return plain | changes


def judged(*rows, networks=None):
    return judge(pl.DataFrame(list(rows), schema=TOUCHES), networks).to_dicts()


def after(seconds):
    return ACCEPTED + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "reasons", "human"),
    [
        ({}, [], True),
        ({"user_agent": None, "address": None, "method": None}, [], True),
        ({"user_agent": "python-requests/2.32"}, ["agent"], False),
        ({"user_agent": "BarracudaSentinel/1.0"}, ["agent"], False),
        ({"user_agent": "Mozilla/5.0"}, ["bare"], False),
        ({"user_agent": ""}, ["bare"], False),
        ({"method": "HEAD"}, ["head"], False),
        ({"slot": TRAP_SLOT}, ["trap"], False),
        ({"address": "148.163.150.9"}, ["network"], False),
        ({"address": "not an address"}, [], True),
        ({"timestamp": after(1)}, ["hasty"], False),
        ({"timestamp": after(6)}, ["early"], True),
        ({"timestamp": after(-1)}, [], True),
        ({"type": "open", "timestamp": after(1)}, [], True),
        (
            {"type": "open", "user_agent": "Mozilla/5.0", "address": "17.58.4.0/24"},
            ["apple_proxy"],
            False,
        ),
        (
            {"type": "open", "user_agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"},
            ["mail_proxy"],
            True,
        ),
    ],
)
def test_each_reason_is_found_and_named(changes, reasons, human):
    row = judged(touch(**changes))[0]

    assert (reasons, human) == (row["reasons"], row["human"])


def test_three_links_in_two_seconds_are_a_program_and_three_in_a_minute_a_person():
    fast = [touch(slot=i, timestamp=after(3600 + i * 0.5)) for i in range(3)]
    slow = [touch(slot=i, timestamp=after(3600 + i * 20), delivery_id="e") for i in range(3)]

    rows = judged(*fast, *slow)

    assert [["burst", "sweep"]] * 3 + [[]] * 3 == [row["reasons"] for row in rows]


def test_a_program_does_not_spoil_the_click_of_the_reader_who_comes_later():
    rows = judged(
        *[touch(slot=i, timestamp=after(1)) for i in range(3)], touch(timestamp=after(9e3))
    )

    assert [False] * 3 + [True] == [row["human"] for row in rows]


def test_one_network_that_follows_many_mails_at_once_is_a_program():
    scanner = [touch(delivery_id=f"d{i}", timestamp=after(300 + i)) for i in range(6)]
    office = [
        touch(delivery_id=f"o{i}", timestamp=after(600 * i + 3600), address="198.51.100.0/24")
        for i in range(6)
    ]

    rows = judged(*scanner, *office)

    assert [["crowd"]] * 6 + [[]] * 6 == [row["reasons"] for row in rows]


def test_ranges_can_be_given():
    row = judged(touch(address="2001:db8::/48"), networks=Networks(scanners=("2001:db8::/32",)))[0]

    assert ["network"] == row["reasons"]


def test_raw_events_of_accepted_mails_become_touches():
    events = pl.DataFrame(
        {
            "event_id": ["1", "2", "3"],
            "type": ["click", "open", "purchase"],
            "timestamp": [after(10)] * 3,
            "campaign_id": ["c"] * 3,
            "delivery_id": ["d", "d", "d"],
            "slot": [1, None, None],
            "attributes": ['{"user_agent": "curl/8", "method": "HEAD"}', None, None],
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "slot": pl.Int32},
    )
    ledger = pl.DataFrame(
        {"campaign_id": ["c", "c"], "user_id": ["d", "never"], "items": [["a", "b"], None],
         "accepted_at": [ACCEPTED, None]},
        schema_overrides={"accepted_at": pl.Datetime("us", "UTC")},
    )  # fmt: skip

    rows = touches(events.lazy(), ledger).sort("event_id").to_dicts()

    assert TOUCHES.keys() == rows[0].keys()
    assert [("click", "curl/8", "HEAD", 2), ("open", None, None, 2)] == [
        (row["type"], row["user_agent"], row["method"], row["links"]) for row in rows
    ]


def test_no_touches_are_judged_to_no_rows():
    assert judge(pl.DataFrame(schema=TOUCHES)).is_empty()


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 30)), min_size=1,
        max_size=25,
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_bursts_are_those_that_a_plain_loop_finds(clicks):
    rows = [
        touch(delivery_id=d, slot=slot, timestamp=after(5_000 + s), address=None)
        for d, slot, s in clicks
    ]

    found = ["burst" in row["reasons"] for row in judged(*rows)]

    assert found == [
        len({o for e, o, t in clicks if e == d and abs(t - s) <= 2}) >= 3 for d, _, s in clicks
    ]


def labelled(seed: int, mails: int = 4_000):
    """Clicks of persons and programs, `program` saying which; a tenth of either is hard."""
    rng = np.random.default_rng(seed)
    agents = [a for entry in CRAWLER_USER_AGENTS_DATA for a in entry["instances"]]
    rows = []

    def add(program, seconds, **more):
        rows.append(touch(timestamp=after(float(seconds)), **more) | {"program": program})

    for i in range(mails):
        own = {"delivery_id": f"d{i}", "user_agent": str(rng.choice(BROWSERS)),
               "address": f"198.{i % 200}.{rng.integers(256)}.0/24"}  # fmt: skip
        first = 4 + rng.lognormal(8.5, 1.6)
        kind = rng.choice(
            ["reader", "quick", "office", "declared", "sweeper", "hasty", "prober", "crowd", "sly"],
            p=[0.42, 0.04, 0.08, 0.12, 0.12, 0.08, 0.04, 0.07, 0.03],
        )
        if kind == "reader":
            for j, slot in enumerate(rng.permutation(3)[: rng.choice([1, 1, 1, 2, 3])]):
                add(False, first + j * (5 + rng.exponential(40)), slot=int(slot), **own)
        elif kind == "quick":  # opens the picks in tabs, soon after the mail came
            start = 5 + rng.exponential(20)
            for j in range(3):
                add(False, start + j * rng.uniform(1.2, 4), slot=j, **own)
        elif kind == "office":
            add(False, first, **own | {"address": "192.0.2.0/24"})
        elif kind == "declared":
            add(True, first, **own | {"user_agent": str(rng.choice(agents))})
        elif kind == "sweeper":
            start = rng.uniform(1, 90)
            for j in range(3):
                add(True, start + j * rng.uniform(0.05, 0.6), slot=j, **own)
        elif kind == "hasty":
            add(True, rng.uniform(0.2, 2.9), slot=int(rng.integers(3)), **own)
        elif kind == "prober":
            method, slot = ("HEAD", 0) if rng.random() < 0.5 else ("GET", TRAP_SLOT)
            add(True, rng.uniform(5, 600), slot=slot, **own | {"method": method})
        elif kind == "crowd":
            network = f"100.64.{i % 3}.0/24"
            add(True, rng.uniform(20, 200), **own | {"address": network})
        else:  # looks like a reader in everything
            add(True, first, **own)
    return pl.DataFrame(rows, schema=TOUCHES | {"program": pl.Boolean})


def precision_and_recall(frame):
    found = ~judge(frame)["human"]
    hits = (found & frame["program"]).sum()
    return hits / found.sum(), hits / frame["program"].sum()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_programs_are_found_on_a_labelled_set(seed):
    precision, recall = precision_and_recall(labelled(seed))

    assert precision >= 0.95, precision
    assert recall >= 0.9, recall


def test_most_programs_are_found_without_the_list_of_agents(monkeypatch):
    """The list is also where the agents of the set come from: what is left is fair to say."""
    monkeypatch.setattr(bots, "names_itself", lambda agent: False)

    precision, recall = precision_and_recall(labelled(1))

    assert precision >= 0.95, precision
    assert recall >= 0.8, recall
