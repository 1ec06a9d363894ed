"""A campaign hurries when its pace would not bring it through before its window closes."""

from datetime import UTC, datetime, timedelta

from serve.schedule import Schedule

START = datetime(2026, 1, 5, tzinfo=UTC)


def run(closes_after_s, total, per_s, seconds, schedule=None, done=0, since=START):
    """Ask each second, at a steady pace."""
    schedule = schedule or Schedule(since + timedelta(seconds=closes_after_s))
    answers = []
    for s in range(seconds):
        answers.append(schedule.behind(done, total - done, since + timedelta(seconds=s)))
        done = min(total, done + per_s)
    return schedule, answers


def test_who_is_fast_enough_does_not_hurry():
    assert not any(run(100, total=900, per_s=10, seconds=90)[1])


def test_who_is_too_slow_hurries_as_soon_as_there_is_a_pace():
    assert run(100, total=2_000, per_s=10, seconds=10)[1] == [False] * 3 + [True] * 7


def test_who_stands_still_hurries():
    assert run(1_000, total=500, per_s=0, seconds=14)[1][-1]


def test_who_has_just_started_has_no_pace_yet():
    assert not any(run(7_200, total=10_000, per_s=0, seconds=10)[1])


def test_who_has_caught_up_asks_the_model_again_and_does_not_waver():
    schedule, slow = run(100, total=2_000, per_s=10, seconds=10)
    caught_up = START + timedelta(seconds=10)

    _, fast = run(0, 2_000, per_s=25, seconds=20, schedule=schedule, done=100, since=caught_up)
    _, faster = run(0, 2_000, 90, 15, schedule, done=600, since=caught_up + timedelta(seconds=20))

    assert slow[-1]
    assert all(fast[5:])  # through in time now, but only because it hurries
    assert not faster[-1]


def test_without_a_window_nobody_hurries():
    assert not Schedule(None).behind(0, 1_000_000, START)
