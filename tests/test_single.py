"""Single sends, before they reach a store."""

from serve.single import Ask, by_campaign
from tests.small_world import campaign


def test_two_configurations_of_one_id_do_not_share_a_group():
    first, other = campaign("receipt"), campaign("receipt", subject="Another one")
    asks = [Ask(first, "u1"), Ask(other, "u2"), Ask(campaign("receipt"), "u3"), Ask(first, "u4")]

    assert by_campaign(asks) == [[0, 2, 3], [1]]


def test_an_id_and_a_configuration_do_not_share_a_group():
    spec = campaign("receipt")
    asks = [Ask("receipt", "u1"), Ask(spec, "u2"), Ask("receipt", "u3"), Ask("other", "u4")]

    assert by_campaign(asks) == [[0, 2], [1], [3]]
