"""Tokens say who and what; nobody else can make or bend one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reco.errors import ConfigError, InputError, NotFound
from render.links import Link, LinkKind, LinkSigner, with_utm

KEY = bytes(range(32))
ids = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="@"), max_size=60)


@given(st.sampled_from(LinkKind), ids, ids, st.integers(0, 65535))
def test_what_is_signed_is_read_back(kind, campaign, user, number):
    link = Link(kind, campaign, user, number)
    signer = LinkSigner(KEY)

    token = signer.sign(link)

    assert signer.verify(token, kind) == link
    assert signer.sign(link) == token
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_ten_thousand_damaged_or_forged_tokens_never_verify():
    signer = LinkSigner(KEY)
    dice = random.Random(7)
    alphabet = "ABCXYZabcxyz0189-_=+/.% \u00e9\0"
    for n in range(10_000):
        token = signer.sign(Link(LinkKind.CLICK, f"c{n % 7}", f"user-{n}", n % 9))
        forged = LinkSigner(dice.randbytes(32)).sign(Link(LinkKind.CLICK, "c", f"user-{n}", 1))
        at = dice.randrange(len(token))
        damaged = [
            token[:at] + dice.choice(alphabet.replace(token[at], "")) + token[at + 1 :],
            token[:at],
            token[at + 1 :],
            token + dice.choice(alphabet),
            forged,
            "".join(dice.choices(alphabet, k=dice.randrange(80))),
        ]
        with pytest.raises(NotFound):
            signer.verify(damaged[n % len(damaged)], LinkKind.CLICK)


@pytest.mark.parametrize("token", ["", "a", "=" * 40, "A" * 5000, "☃" * 30, "\ud800" * 30])
def test_nonsense_is_not_found(token):
    with pytest.raises(NotFound):
        LinkSigner(KEY).verify(token, LinkKind.CLICK)


def test_a_token_of_one_kind_is_none_of_another():
    signer = LinkSigner(KEY)
    token = signer.sign(Link(LinkKind.CLICK, "c", "u"))

    for kind in set(LinkKind) - {LinkKind.CLICK}:
        with pytest.raises(NotFound):
            signer.verify(token, kind)


def test_keys_rotate_by_their_id():
    link = Link(LinkKind.OPEN, "c", "u")
    old = LinkSigner({1: b"a" * 32})
    both = LinkSigner({1: b"a" * 32, 2: b"b" * 32})
    new = LinkSigner({2: b"b" * 32})

    assert both.verify(old.sign(link), LinkKind.OPEN) == link
    assert both.sign(link) == new.sign(link)
    with pytest.raises(NotFound):
        new.verify(old.sign(link), LinkKind.OPEN)


def test_the_same_bytes_cut_elsewhere_are_another_link():
    signer = LinkSigner(KEY)

    one = signer.sign(Link(LinkKind.CLICK, "ab", "c"))
    other = signer.sign(Link(LinkKind.CLICK, "a", "bc"))

    assert one != other


def test_addresses_never_stand_in_a_url():
    with pytest.raises(InputError, match="never e-mail addresses"):
        LinkSigner(KEY).sign(Link(LinkKind.CLICK, "c", "ana@example.com"))


@pytest.mark.parametrize(
    "link", [Link(LinkKind.CLICK, "c" * 256, "u"), Link(LinkKind.CLICK, "c", "u", 65536)]
)
def test_what_does_not_fit_is_refused(link):
    with pytest.raises(InputError):
        LinkSigner(KEY).sign(link)


@pytest.mark.parametrize("keys", [b"short", {}, {256: KEY}, {1: b""}])
def test_weak_keys_are_refused(keys):
    with pytest.raises(ConfigError):
        LinkSigner(keys)


def test_an_address_is_root_kind_and_token():
    signer = LinkSigner(KEY)
    link = Link(LinkKind.UNSUBSCRIBE, "c", "u")

    assert (
        signer.url("https://shop.example/", link) == f"https://shop.example/u/{signer.sign(link)}"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/a", "https://x.example/a?utm_content=reco&utm_medium=email"),
        (
            "https://x.example/a?b=1#c",
            "https://x.example/a?b=1&utm_content=reco&utm_medium=email#c",
        ),
        ("https://x.example/?utm_medium=own", "https://x.example/?utm_medium=own&utm_content=reco"),
        ("https://x.example/?b", "https://x.example/?b&utm_content=reco&utm_medium=email"),
    ],
)
def test_utm_parameters_are_added_and_nothing_is_lost(url, expected):
    assert with_utm(url, {"utm_content": "reco", "utm_medium": "email", "utm_term": ""}) == expected
