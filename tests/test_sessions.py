"""Sessions of the console: only for who knew the key, for a while, and a token a form."""

import pytest

from serve.sessions import COOKIE, LASTS_S, Sessions

OURS = Sessions("the key of the API")


def cookies():
    return {COOKIE: OURS.open("the key of the API") or ""}


def test_who_knows_the_key_gets_a_session_and_others_none():
    assert OURS.valid(cookies())
    assert OURS.open("another key") is None
    assert OURS.open("") is None


@pytest.mark.parametrize("value", ["", "x", "..", "9999999999.a.b", "9999999999.é.b"])
def test_forged_cookies_are_refused(value):
    assert not OURS.valid({COOKIE: value})
    assert not OURS.valid({})


def test_a_longer_life_cannot_be_written_into_a_cookie():
    end, nonce, signature = cookies()[COOKIE].split(".")

    assert not OURS.valid({COOKIE: f"{int(end) + 1}.{nonce}.{signature}"})


def test_sessions_end_and_a_new_key_ends_them_all(monkeypatch):
    mine = cookies()

    assert not Sessions("a new key of the API").valid(mine)
    end = int(mine[COOKIE].partition(".")[0])
    monkeypatch.setattr("serve.sessions.time.time", lambda: end - LASTS_S + 1)
    assert OURS.valid(mine)
    monkeypatch.setattr("serve.sessions.time.time", lambda: end + 1)
    assert not OURS.valid(mine)


def test_a_form_belongs_to_one_session():
    mine, other = cookies(), cookies()

    assert OURS.form_is_ours(mine, OURS.form_token(mine))
    assert not OURS.form_is_ours(mine, OURS.form_token(other))
    assert not OURS.form_is_ours(mine, "")
