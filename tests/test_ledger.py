"""The ledger on a real PostgreSQL: nobody is mailed twice and nobody is lost, whoever dies when."""

import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL
from sqlalchemy import Engine

from reco.campaigns.delivery import FINAL, Claim, HandOff, Recovered, Settled, State, Suppressed
from reco.campaigns.ledger import Ledger
from reco.campaigns.ledger_sql import CLAIM, CLAIM_THESE, HAND_OFF, RECOVER, RENEW, SETTLE
from reco.errors import ServiceUnavailable

# What PostgreSQL says to one of two that wait for each other, the first time only.
ROLL_BACK_ONCE = """
    create sequence rolled_back;
    create or replace function roll_back() returns trigger language plpgsql as $$ begin
        if nextval('rolled_back') = 1 then
            raise exception 'one of two' using errcode = '{code}';
        end if;
        return null;
    end $$;
    create trigger roll_back before update on deliveries for each statement
        execute function roll_back();
"""
LET_THROUGH = "drop function if exists roll_back cascade; drop sequence if exists rolled_back"
USERS = [f"u{i:03}" for i in range(12)]
SURE = (State.ACCEPTED, State.FAILED, State.DEFERRED)


def url_of(engine: Engine) -> str:
    """Address of the engine's database as psycopg takes it."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def ledger(engine: Engine) -> Iterator[Ledger]:
    """An empty ledger."""
    with Ledger(url_of(engine)) as ledger:
        yield ledger


def mail(user_id: str, items: tuple[str, ...] = ("a", "b")) -> HandOff:
    """A mail with made-up picks."""
    scores = [0.5 - i / 10 for i in range(len(items))]
    return HandOff(user_id, f"<{user_id}@x>", 2, items, scores, [1] * len(items), 100)


def users_of(claim: Claim) -> list[str]:
    """Users of a claim."""
    return [delivery.user_id for delivery in claim.deliveries]


def claim_and_hand_off(
    ledger: Ledger, limit: int = 100, lease_s: float = 60
) -> tuple[int, set[str]]:
    """Claim and hand off in one go; gives the fence and the users."""
    claim = ledger.claim("c", limit, lease_s)
    mails = [mail(user) for user in users_of(claim)]
    return claim.fence, ledger.hand_off("c", claim.fence, mails, lease_s)


def test_a_recipient_is_queued_once(ledger: Ledger) -> None:
    assert ledger.enqueue("c", [(user, "a") for user in USERS]) == len(USERS)
    assert ledger.enqueue("c", [(user, "b") for user in [*USERS, "new"]]) == 1
    assert ledger.enqueue("other", [(USERS[0], "b")]) == 1
    assert ledger.enqueue("c", []) == 0

    assert ledger.rows("c")["arm"].to_list().count("a") == len(USERS)


def test_a_mail_goes_through_to_accepted_with_its_facts(ledger: Ledger) -> None:
    ledger.enqueue("c", [("ann", "personal"), ("bob", "control")])
    claim = ledger.claim("c", 10)
    tricky = ('quote " and \\', "comma, {brace}", "NULL", "")
    ours = ledger.hand_off("c", claim.fence, [mail("ann", tricky), mail("bob", ("x",))])
    ledger.settle("c", claim.fence, [Settled(user, State.ACCEPTED, "250 ok") for user in ours])
    ann, bob = ledger.rows("c").iter_rows(named=True)

    assert (ann["user_id"], ann["arm"], ann["state"]) == ("ann", "personal", "accepted")
    assert tuple(ann["items"]) == tricky
    assert ann["scores"] == [0.5, 0.4, 0.3, 0.2]
    assert bob["items"] == ["x"]
    assert (bob["message_id"], bob["rung"], bob["reply"], bob["attempts"]) == (
        "<bob@x>",
        2,
        "250 ok",
        1,
    )
    assert ann["accepted_at"] >= ann["queued_at"]


@pytest.mark.parametrize("code", ["40P01", "40001"])
def test_who_loses_a_deadlock_does_it_again(ledger: Ledger, engine: Engine, code: str) -> None:
    ledger.enqueue("c", [("ann", "a"), ("bob", "a")])
    with engine.begin() as connection:
        connection.exec_driver_sql(ROLL_BACK_ONCE.format(code=code))
    try:
        assert ledger.stop("c", "over") == 2
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(LET_THROUGH)


def test_a_silent_network_is_noticed(ledger: Ledger) -> None:
    ledger.counts("c")

    assert ledger._connection is not None
    said = ledger._connection.info.get_parameters()
    assert (said["keepalives_idle"], said["tcp_user_timeout"]) == ("10", "15000")


def test_two_workers_never_share_a_claim(ledger: Ledger, engine: Engine) -> None:
    ledger.enqueue("c", [(user, "a") for user in USERS])
    with Ledger(url_of(engine)) as other:
        first, second = ledger.claim("c", 7), other.claim("c", 7)

    assert len(first) == 7
    assert sorted(users_of(first) + users_of(second)) == USERS
    assert first.fence < second.fence
    assert users_of(ledger.claim("c", 7)) == []


def test_workers_in_many_threads_take_every_row_once(ledger: Ledger, engine: Engine) -> None:
    users = [f"u{i:05}" for i in range(3000)]
    handed: list[str] = []

    def driver() -> None:
        with Ledger(url_of(engine)) as mine:
            mine.enqueue("c", [(user, "a") for user in users])
            while True:
                fence, ours = claim_and_hand_off(mine, 64)
                if not ours:
                    return
                handed.extend(ours)
                mine.settle("c", fence, [Settled(user, State.ACCEPTED) for user in ours])

    threads = [threading.Thread(target=driver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(handed) == users
    assert ledger.counts("c")["accepted"] == len(users)


def test_who_lost_the_claim_may_not_send(ledger: Ledger) -> None:
    ledger.enqueue("c", [("ann", "a")])
    late = ledger.claim("c", 1, lease_s=0)
    assert ledger.recover("c") == Recovered(requeued=1, uncertain=0)
    now = ledger.claim("c", 1)

    assert ledger.hand_off("c", late.fence, [mail("ann")]) == set()
    assert ledger.suppress("c", late.fence, [Suppressed("ann", "late")]) == set()
    assert ledger.hand_off("c", now.fence, [mail("ann")]) == {"ann"}
    assert ledger.hand_off("c", now.fence, [mail("ann")]) == set()


def test_who_died_in_the_hand_off_leaves_it_uncertain_and_unsent(ledger: Ledger) -> None:
    ledger.enqueue("c", [("ann", "a")])
    fence, _ = claim_and_hand_off(ledger, lease_s=0)
    assert ledger.recover("c") == Recovered(requeued=0, uncertain=1)

    assert len(ledger.claim("c", 1)) == 0
    assert ledger.counts("c")["uncertain"] == 1
    # It was slow, not dead, and knows: that is the truth.
    assert ledger.settle("c", fence, [Settled("ann", State.DEFERRED)]) == set()
    assert ledger.settle("c", fence, [Settled("ann", State.ACCEPTED)]) == {"ann"}


@pytest.mark.parametrize("state", [State.FAILED, State.DEFERRED, State.UNCERTAIN, State.SUPPRESSED])
def test_accepted_is_final(ledger: Ledger, state: State) -> None:
    ledger.enqueue("c", [("ann", "a")])
    fence, _ = claim_and_hand_off(ledger)
    ledger.settle("c", fence, [Settled("ann", State.ACCEPTED)])

    assert ledger.settle("c", fence, [Settled("ann", state)]) == set()
    assert ledger.stop("c", "over") == 0
    assert ledger.counts("c")["accepted"] == 1


def test_a_deferred_mail_comes_back_when_it_is_due(ledger: Ledger) -> None:
    ledger.enqueue("c", [("ann", "a"), ("bob", "a")])
    fence, _ = claim_and_hand_off(ledger)
    now = datetime.now(UTC)
    later = now + timedelta(hours=1)
    ledger.settle(
        "c",
        fence,
        [Settled("ann", State.DEFERRED, "450", now), Settled("bob", State.DEFERRED, "450", later)],
    )
    again = ledger.claim("c", 10)

    assert [(d.user_id, d.attempts) for d in again.deliveries] == [("ann", 1)]
    assert ledger.next_due("c") == later
    assert ledger.hand_off("c", again.fence, [mail("ann")]) == {"ann"}


def test_due_mails_go_before_fresh_ones(ledger: Ledger) -> None:
    ledger.enqueue("c", [("zoe", "a")])
    fence, _ = claim_and_hand_off(ledger)
    ledger.settle("c", fence, [Settled("zoe", State.DEFERRED, "450", datetime.now(UTC))])
    ledger.enqueue("c", [(user, "a") for user in USERS])

    assert users_of(ledger.claim("c", 1)) == ["zoe"]
    assert users_of(ledger.claim("c", 2)) == USERS[:2]


def test_named_deliveries_can_be_claimed_unless_somebody_has_them(ledger: Ledger) -> None:
    ledger.enqueue("c", [(user, "a") for user in USERS[:3]])
    ledger.claim("c", 1)
    claim = ledger.claim_these("c", [USERS[0], USERS[2], "nobody"])

    assert users_of(claim) == [USERS[2]]
    assert ledger.hand_off("c", claim.fence, [mail(USERS[2])]) == {USERS[2]}


def test_single_ones_are_queued_and_claimed_in_one_step(ledger: Ledger) -> None:
    ledger.enqueue("c", [(user, "a") for user in USERS[:2]])
    somebodys = ledger.claim("c", 1)

    taken = ledger.take("c", [(user, "b") for user in USERS[:3]])
    again = ledger.take("c", [(user, "b") for user in USERS[:3]])

    assert taken.fence > somebodys.fence
    arms = {claimed.user_id: claimed.arm for claimed in taken.deliveries}
    assert arms == {USERS[1]: "a", USERS[2]: "b"}
    assert users_of(again) == []
    assert ledger.hand_off("c", taken.fence, [mail(user) for user in USERS[:3]]) == set(USERS[1:3])


def test_suppressed_and_released_ones_are_not_sent(ledger: Ledger) -> None:
    ledger.enqueue("c", [(user, "a") for user in USERS[:4]])
    claim = ledger.claim("c", 4)
    ledger.suppress("c", claim.fence, [Suppressed(USERS[0], "unsubscribe")])
    ledger.settle("c", claim.fence, [Settled(USERS[1], State.FAILED, "no mail could be made")])
    assert ledger.release("c", claim.fence) == 2
    assert ledger.hand_off("c", claim.fence, [mail(user) for user in USERS[:4]]) == set()

    assert ledger.stop("c", "deadline") == 2
    rows = ledger.rows("c")
    assert dict(zip(rows["user_id"], rows["reply"], strict=True)) == {
        USERS[0]: "unsubscribe",
        USERS[1]: "no mail could be made",
        USERS[2]: "deadline",
        USERS[3]: "deadline",
    }


def test_rows_of_an_empty_campaign_have_their_columns(ledger: Ledger) -> None:
    rows = ledger.rows("nothing")

    assert rows.is_empty()
    assert rows.schema["items"] == pl.List(pl.String)
    assert set(ledger.counts("nothing").values()) == {0}


def test_picks_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        HandOff("ann", "<1>", 1, ["a", "b"], [0.5], [1, 1], 10)


def test_a_lost_connection_is_made_again(ledger: Ledger, engine: Engine) -> None:
    ledger.enqueue("c", [("ann", "a")])
    with psycopg.connect(url_of(engine), autocommit=True) as other:
        other.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'reco ledger'"
        )

    assert users_of(ledger.claim("c", 1)) == ["ann"]


def test_a_database_that_stays_away_is_named() -> None:
    with pytest.raises(ServiceUnavailable, match="ledger") as caught:
        Ledger("postgresql://u:secret@127.0.0.1:1/x").counts("c")

    assert "secret" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class Worker:
    """A sender in the test: knows what it holds, and may forget everything at any time."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.sent: list[tuple[int, str]] = []  # handed off, not settled
        self.told: list[tuple[int, str]] = []  # settled before

    def step(self, ledger: Ledger, kind: str, outcome: State, journal: Counter[str]) -> None:
        """Do one thing. `journal` counts the mails that may be out, by user."""
        if kind == "claim":
            self.claims.append(ledger.claim("c", 3, lease_s=0))
        elif kind == "hand_off" and self.claims:
            claim = self.claims.pop(0)
            ours = ledger.hand_off("c", claim.fence, [mail(u) for u in users_of(claim)], lease_s=0)
            journal.update(ours)
            self.sent += [(claim.fence, user) for user in ours]
            assert all(fence_of(ledger, user) == claim.fence for user in ours)
        elif kind == "settle" and self.sent:
            self.told.append(self.sent.pop(0))
            self.settle(ledger, *self.told[-1], outcome, journal)
        elif kind == "settle again" and self.told:
            self.settle(ledger, *self.told[-1], outcome, journal)
        elif kind == "release" and self.claims:
            ledger.release("c", self.claims.pop(0).fence)
        elif kind == "crash":
            self.claims, self.sent, self.told = [], [], []

    def settle(
        self, ledger: Ledger, fence: int, user: str, outcome: State, journal: Counter[str]
    ) -> None:
        """Say what became of a mail; only the last owner is heard."""
        heard = ledger.settle("c", fence, [Settled(user, outcome, "", datetime.now(UTC))])
        assert not heard or fence_of(ledger, user) == fence
        if heard and outcome is State.DEFERRED:
            journal[user] -= 1  # the server said that it has nothing


def fence_of(ledger: Ledger, user: str) -> int:
    """The number of the claim that a row belongs to."""
    rows = ledger.rows("c").filter(pl.col("user_id") == user)
    return int(rows["fence"].item())


WEIGHTS = {
    "claim": 3,
    "hand_off": 4,
    "settle": 5,
    "settle again": 4,
    "recover": 1,
    "release": 1,
    "crash": 1,
}
KINDS = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
steps = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(KINDS), st.sampled_from(SURE)),
    min_size=40,
    max_size=80,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_no_order_of_steps_and_crashes_sends_twice_or_loses_anybody(
    ledger: Ledger, engine: Engine, steps: list[tuple[int, str, State]]
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("truncate deliveries")
    ledger.enqueue("c", [(user, "a") for user in USERS[:6]])
    workers, journal, accepted = [Worker(), Worker()], Counter[str](), set[str]()
    for who, kind, outcome in steps:
        if kind == "recover":
            ledger.recover("c")
        else:
            workers[who].step(ledger, kind, outcome, journal)
        assert max(journal.values(), default=0) <= 1
        rows = ledger.rows("c")
        now = set(rows.filter(pl.col("state") == "accepted")["user_id"])
        assert accepted <= now
        accepted = now
    workers[0] = Worker()
    for _ in range(6):  # a last sender without faults finishes what the others left
        ledger.recover("c")
        for kind in ("claim", "claim", "hand_off", "hand_off", *["settle"] * 6):
            workers[0].step(ledger, kind, State.ACCEPTED, journal)
    ledger.recover("c")
    counts = ledger.counts("c")

    assert max(journal.values(), default=0) <= 1
    assert sum(counts[state] for state in FINAL) == sum(counts.values()) == 6
    assert sum(journal.values()) == counts["accepted"] + counts["failed"] + counts["uncertain"]


def test_a_claim_outlives_its_lease_until_somebody_recovers(ledger: Ledger) -> None:
    ledger.enqueue("c", [("ann", "a")])
    claim = ledger.claim("c", 1, lease_s=0.05)
    assert ledger.recover("c") == Recovered(0, 0)
    time.sleep(0.1)
    assert ledger.hand_off("c", claim.fence, [mail("ann")], lease_s=60) == {"ann"}

    assert ledger.recover("c") == Recovered(0, 0)


def test_a_claim_reads_its_own_rows_only_however_large_the_campaign(
    ledger: Ledger, engine: Engine
) -> None:
    ledger.enqueue("c", [(f"u{i:05}", "a") for i in range(6_000)])  # enough to be analyzed
    values = {"campaign": "c", "limit": 50, "lease_s": 60, "users": USERS, "fence": 1}
    for statement in (CLAIM, CLAIM_THESE, RENEW, RECOVER):
        with psycopg.connect(url_of(engine)) as connection:
            plan = connection.execute(SQL("explain ") + statement, values).fetchall()
        assert any("Index Scan using deliveries_pkey on deliveries d" in line for (line,) in plan)


def test_a_group_is_written_by_its_keys_in_a_campaign_without_statistics(
    ledger: Ledger, engine: Engine
) -> None:
    for lo in range(0, 40_000, 4_000):  # too few at a time to be analyzed
        ledger.enqueue("c", [(f"u{i:05}", "a") for i in range(lo, lo + 4_000)])
    texts, numbers = ["x"] * 64, [1] * 64
    values = {
        "campaign": "c",
        "fence": 1,
        "lease_s": 60,
        "users": [f"u{i:05}" for i in range(64)],
        **dict.fromkeys(("messages", "items", "states", "replies"), texts),
        **dict.fromkeys(("rungs", "sizes", "reasons", "firsts", "lasts"), numbers),
        "scores": [0.5] * 64,
        "times": [None] * 64,
        "tried": [True] * 64,
    }
    for statement in (HAND_OFF, SETTLE):
        with psycopg.connect(url_of(engine)) as connection:
            plan = connection.execute(SQL("explain ") + statement, values).fetchall()
        found = [line for (line,) in plan if "Index Cond" in line]
        assert len(found) == 1
        assert "campaign_id" in found[0]
        assert "user_id" in found[0]
