"""What new subscribers said they want, before the model knows them: popular items of those aisles.

Only for those whose slate holds nothing of the model's own; once they buy, their purchases speak.
"""

from collections.abc import Sequence

import numpy as np

from reco.catalogue import Catalogue
from reco.models.slates import Reason, Rung, Slates
from reco.rules.ladder import Keys, Pools


def asked_first(
    slates: Slates, interests: Sequence[Sequence[str]], pools: Pools, catalogue: Catalogue, k: int
) -> Slates:
    """Slates [n, w] in which up to `k` popular items of each cold subscriber's interests lead.

    `interests` [n] holds category names; several take turns. Nothing is shown twice, and what was
    there before moves back, so that the rules still have enough to choose from.
    """
    cold = (slates.rungs > Rung.LIVE).all(axis=1) | (slates.items == 0).all(axis=1)
    wanted = [i for i in np.flatnonzero(cold).tolist() if interests[i]]
    if not wanted:
        return slates
    items, scores = slates.items.copy(), slates.scores.copy()
    reasons, rungs = slates.reasons.copy(), slates.rungs.copy()
    width = items.shape[1]
    for i in wanted:
        asked = _popular_in(interests[i], pools, catalogue, min(k, width))
        stay = np.flatnonzero(~np.isin(items[i], asked))[: width - len(asked)]
        end = len(asked) + len(stay)
        for column in (items, scores, reasons, rungs):
            column[i, len(asked) : end] = column[i, stay]
            column[i, end:] = 0
        items[i, : len(asked)], scores[i, : len(asked)] = asked, 0
        reasons[i, : len(asked)], rungs[i, : len(asked)] = Reason.ASKED, Rung.POPULAR
    why = slates.because
    if why is not None:
        why = why.copy()
        why[wanted] = 0  # who is cold has taken nothing that a pick goes with
    return Slates(items, scores, reasons, rungs, why)


def _popular_in(categories: Sequence[str], pools: Pools, catalogue: Catalogue, k: int) -> Keys:
    """Up to k keys of these categories in turn, the popular ones first, then any in stock."""
    codes = [catalogue.category_names.index(c) for c in categories if c in catalogue.category_names]
    keys = np.concatenate([pools.popular, pools.stock])
    _, first = np.unique(keys, return_index=True)
    keys = keys[np.sort(first)]
    found = catalogue.category[catalogue.index.rows(keys)]
    lists = [keys[found == code][:k] for code in codes]
    turns = [line[n] for n in range(k) for line in lists if n < len(line)]
    return np.array(turns[:k], np.uint64)
