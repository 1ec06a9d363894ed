"""What is kept of who followed a link."""

import pytest

from serve.visit import network_of


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("unix", ""),
        ("", ""),
    ],
)
def test_addresses_become_networks(host, network):
    assert network == network_of(host)
