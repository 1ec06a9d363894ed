"""What a training run decides before its first fit."""

import pytest

from tests.test_touches import PURCHASE, lookers
from train.config import TrainConfig
from train.plan import with_horizon

HISTORIES = lookers(buy_what_they_saw=True)
FIRST = int(HISTORIES.records["day"][HISTORIES.records["type"] == PURCHASE].min())


@pytest.mark.parametrize(("span", "horizon"), [(330, 28), (112, 28), (60, 15), (14, 3), (9, 28)])
def test_a_short_history_gets_a_short_horizon(span: int, horizon: int) -> None:
    """One that is too short keeps it, and is refused by look_at."""
    config = with_horizon(TrainConfig(), HISTORIES, PURCHASE, FIRST + span)

    assert config.horizon_days == horizon
