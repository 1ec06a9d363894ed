"""The suppression list: who is on it stays on it, whatever the spelling."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from reco.subscribers.hygiene import fault, normalise, normalise_many
from reco.subscribers.suppression import SuppressionList, SuppressionReason

KEY = b"k" * 32
NOW = datetime.now(UTC)


@pytest.fixture
def suppressed(engine: Engine) -> SuppressionList:
    """An empty list."""
    return SuppressionList(engine, KEY)


@pytest.mark.parametrize("spelling", ["Ann@Example.com", " ann@example.COM ", "ANN@EXAMPLE.COM"])
def test_spelling_does_not_matter(suppressed: SuppressionList, spelling: str) -> None:
    suppressed.add(["ann@example.com"], SuppressionReason.UNSUBSCRIBE, "one_click")
    entries = suppressed.check(["bob@example.com", spelling])

    assert entries[0] is None
    assert entries[1] is not None
    assert (entries[1].reason, entries[1].source) == ("unsubscribe", "one_click")


def test_a_domain_is_the_same_in_both_its_alphabets(suppressed: SuppressionList) -> None:
    suppressed.add(["ann@xn--bcher-kva.example"], SuppressionReason.MANUAL, "import")

    assert suppressed.check(["ann@bücher.example"])[0] is not None


def test_the_table_names_nobody(suppressed: SuppressionList, engine: Engine) -> None:
    suppressed.add(["ann@example.com"], SuppressionReason.COMPLAINT, "arf")
    with engine.connect() as connection:
        row = str(connection.execute(text("select * from suppressions")).all())
    other = SuppressionList(engine, b"x" * 32)

    assert "ann" not in row
    assert other.check(["ann@example.com"]) == [None]


def test_only_an_entry_that_expires_makes_way(suppressed: SuppressionList) -> None:
    ann = ["ann@example.com"]
    soft = SuppressionReason.SOFT_BOUNCE
    assert suppressed.add(ann, soft, "bounce", NOW + timedelta(days=1)) == 1
    assert suppressed.add(ann, soft, "bounce", NOW + timedelta(hours=1)) == 0
    assert suppressed.add(ann, SuppressionReason.COMPLAINT, "arf") == 1
    assert suppressed.add(ann, soft, "bounce", NOW + timedelta(days=9)) == 0
    assert suppressed.add(ann, SuppressionReason.MANUAL, "import") == 0

    entry = suppressed.check(ann)[0]
    assert entry is not None
    assert (entry.reason, entry.expires_at) == (SuppressionReason.COMPLAINT, None)


def test_an_expired_entry_is_out_of_force(suppressed: SuppressionList) -> None:
    past = NOW - timedelta(seconds=1)
    suppressed.add(["ann@example.com"], SuppressionReason.SOFT_BOUNCE, "bounce", past)

    assert suppressed.check(["ann@example.com"]) == [None]


def test_the_owner_may_come_back(suppressed: SuppressionList) -> None:
    suppressed.add(["ann@example.com"] * 2, SuppressionReason.UNSUBSCRIBE, "preferences")

    assert suppressed.remove("Ann@example.com")
    assert not suppressed.remove("ann@example.com")
    assert suppressed.check(["ann@example.com"]) == [None]
    assert suppressed.check([]) == []
    assert suppressed.add([], SuppressionReason.MANUAL, "import") == 0


def test_a_short_key_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        SuppressionList(engine, b"short")


@given(
    st.from_regex(r"[a-zA-Z0-9_+-]{1,9}(\.[a-z0-9]{1,9})?@[a-zA-Z]{1,9}\.(com|de)", fullmatch=True)
)
def test_the_short_way_to_a_hash_gives_the_long_ways_form(address: str) -> None:
    normal = normalise(address)

    assert normal is None or normal.casefold() == address.casefold()


def test_addresses_are_checked_by_syntax() -> None:
    assert normalise_many(["Ann@EXAMPLE.com", None, "no at sign", "a@b"]) == [
        "Ann@example.com",
        None,
        None,
        None,
    ]
    assert fault("ann@example.com") is None
    assert "@" in (fault("no at sign") or "")
