"""The usual days between two purchases of a pick, by whoever it is shown to."""

from datetime import UTC, datetime, timedelta

import numpy as np

from reco.features.history import RECORD, Histories
from reco.models.slates import Reason, Rung, Slates
from reco.tables import type_code
from serve.chunks import Choice, FeatureChunk, Recipients, Request
from serve.gaps import MOST_DAYS, repeat_gaps

DAY = 17_500
NOW = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=DAY)
REPEAT, POPULAR = int(Reason.REPEAT), int(Reason.POPULAR)
# By owner and item: days of their purchases.
BOUGHT = {
    (0, 11): (DAY - 30, DAY - 20, DAY - 10),
    (0, 12): (DAY - 5,),
    (1, 11): (DAY - 15, DAY - 1),
    (2, 13): (DAY - 900, DAY - 1),
}


def gaps_of(items, reasons, owners=3):
    kept = [(owner, item, day) for (owner, item), days in BOUGHT.items() for day in days]
    kept = [purchase for purchase in kept if purchase[0] < owners]
    records = np.zeros(len(kept), RECORD)
    records["item"] = [item for _, item, _ in kept]
    records["day"] = [day for *_, day in kept]
    records["count"], records["type"] = 1, type_code("purchase")
    histories = Histories.of(np.array([k[0] for k in kept], np.int64), records, owners)
    slates = slates_of(items, reasons)
    chunk = FeatureChunk(
        request=Request(Choice("spring", picks=3), [], []),
        recipients=Recipients(*([[]] * 9)),
        withheld=[],
        personal=np.ones(owners, bool),
        histories=histories,
        fresh=slates,
        now=NOW,
    )
    return repeat_gaps(chunk, slates).tolist()


def slates_of(items, reasons):
    keys = np.array(items, np.uint64).reshape(-1, 3)
    rungs = np.full(keys.shape, Rung.LIVE, np.uint8)
    return Slates(keys, np.zeros(keys.shape, np.float32), np.array(reasons, np.uint8), rungs)


def test_each_recipient_has_the_gap_of_their_own_purchases_in_the_place_of_the_pick():
    items = [[12, 11, 0], [13, 11, 12], [0, 0, 13]]

    found = gaps_of(items, [[REPEAT] * 3] * 3)

    assert found == [[0, 10, 0], [0, 14, 0], [0, 0, MOST_DAYS]]


def test_a_pick_that_is_there_for_another_reason_has_none():
    assert gaps_of([[11, 12, 13]] * 3, [[POPULAR] * 3] * 3) == [[0, 0, 0]] * 3


def test_a_chunk_of_nobody_has_no_gaps():
    assert gaps_of([], np.zeros((0, 3)), owners=0) == []
