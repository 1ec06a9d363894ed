"""What somebody said who has not bought yet: which categories an answer or a source speaks for.

Takes the categories of the items, gives log-lifts by profile token (features.profile) for
models.lookalike: an answer on the preference page names a category, the words of a signup source,
a landing page or a campaign may be those of one.
"""

from collections import defaultdict
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt

from reco.features.profile import token, words_of
from reco.models.lookalike import DAMPING
from reco.subscribers.interests import ATTRIBUTE

Rows = npt.NDArray[np.int32]
ANSWER: Final = f"attributes.{ATTRIBUTE}"
ASKED: Final = 30.0  # times the odds of a category that somebody asked for
CAME_FOR: Final = 6.0  # ... of one that the source speaks of
BEST: Final = 30  # most popular items of a category that are raised
SHARED: Final = 3  # categories a word may stand for; more say nothing


def category_priors(
    names: list[str], category: Rows, share: npt.NDArray[np.float32]
) -> dict[int, tuple[float, Rows]]:
    """Log-lift and rows of the raised items, by token.

    category int32 [n] position in `names`, -1 for none; share [n] of recent takers.
    """
    rows = {}
    order = np.argsort(-share, kind="stable").astype(np.int32)
    order = order[(category[order] >= 0) & (share[order] > 0)]
    order = order[np.argsort(category[order], kind="stable")]
    for part in np.split(order, np.flatnonzero(np.diff(category[order])) + 1):
        if len(part):
            rows[names[category[part[0]]]] = part[:BEST]
    priors = {token(ANSWER, name): (log(ASKED) / DAMPING, found) for name, found in rows.items()}
    spoken: defaultdict[str, list[Rows]] = defaultdict(list)
    for name, found in rows.items():
        for word in words_of(name):
            spoken[word].append(found)
    # A category named by the word alone is meant by it, however many others hold the word too.
    whole = {name.lower(): [found] for name, found in rows.items() if name.lower() in spoken}
    return priors | {
        token("source_word", word): (log(CAME_FOR) / DAMPING, np.concatenate(parts))
        for word, parts in (spoken | whole).items()
        if len(parts) <= SHARED
    }
