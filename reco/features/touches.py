"""Looked at, put into the cart: evidence of what somebody will take, where takings are rare.

Takes histories, gives them with views and carts counted as the target. Labels are never made from
these: what is predicted stays the target itself.
"""

from typing import Final

import numpy as np

from reco.features.history import Histories
from reco.tables import type_code

TOUCHES: Final = ("cart", "view")


def touched(histories: Histories, target: int) -> Histories:
    """The histories with touches as events of the target; what they bought counts as well."""
    weak = np.isin(histories.records["type"], [type_code(name) for name in TOUCHES])
    if not weak.any():
        return histories
    records = histories.records.copy()
    records["type"][weak] = target
    return Histories.of(histories.owner, records, len(histories), histories.tokens, histories.flags)
