"""Personal data never crosses recipients: whatever the order of chunks, and whatever fails."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from email import message_from_bytes
from email.policy import default
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from reco.campaigns.delivery import delivery_id, recipient_of
from reco.campaigns.ledger import Ledger
from reco.campaigns.smtp import SmtpPool
from reco.embedded import Services
from reco.errors import ServiceUnavailable
from reco.models.slates import Rung, Slates
from reco.models.topk import pack
from reco.rules.caps import Caps
from reco.tables import CHAMPION_KEY, item_keys, topk_key
from render.links import LinkKind, LinkSigner
from serve.chunks import Assembled, Request
from serve.metrics import Meters
from serve.sender import Sender
from tests.small_world import ITEM_COUNT, MAILED, USERS, World, campaign, small_world
from tests.smtpd import SmtpSink, running_sink
from tests.stages import Stages

SIDE = 20  # of those, half have their mail at a receiver with a rate
PEOPLE = [user for user in MAILED if user != "u02"][:SIDE]
NUMBERS = count()
WANTED = campaign(
    "own",
    arms=[{"name": "personal", "weight": 1, "slate": "model"}],
    operator_rates={"gmail": 400},
    rules={"frequency_cap": {"times": 99, "days": 7}},
)
FAULTS = ("mailbox_busy", "mailbox_unavailable", "disconnect_before_reply", "disconnect_in_data")


def picks_of(user: str) -> list[str]:
    """Twenty items in an order that no other subscriber has."""
    first = USERS.index(user)
    return [f"item-{(first + 7 * place) % (ITEM_COUNT - 1):02d}" for place in range(20)]


@pytest.fixture(scope="module")
def world(services: Services) -> Iterator[World]:
    with small_world(services) as world:
        client = world.online._redis
        client.set(CHAMPION_KEY, json.dumps({"version": "m1", "directory": "/nowhere"}))
        for user in PEOPLE:
            slates = Slates.empty(1, 20)
            slates.items[0] = item_keys(picks_of(user))
            slates.scores[0] = np.linspace(0.9, 0.1, 20)
            slates.rungs[0] = Rung.FRESH
            client.set(topk_key(user), pack(slates, "m1", 0)[0])
        with world.engine.begin() as connection:
            connection.exec_driver_sql(
                "update subscribers set consent_profiling = true, consent_tracking = true, "
                "email = user_id || case when user_id < 'u15' then '@gmail.com' "
                "else '@mail.example' end where email <> ''"
            )
        yield world


@pytest.fixture(scope="module")
def sink() -> Iterator[SmtpSink]:
    with running_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def stages(world: World) -> Stages:
    return Stages(world)


async def send(
    world: World,
    stages: Stages,
    sink: SmtpSink,
    parts: Sequence[Sequence[str]],
    lost: set[int],
) -> None:
    """Send to the parts of the audience at once; those in `lost` are made at the second try."""
    key, tries = str(next(NUMBERS)), count()
    groups = [[delivery_id(user, key) for user in part] for part in parts]

    async def assemble(request: Request) -> Assembled:
        if next(tries) in lost:
            raise ServiceUnavailable("A replica died.")
        return await asyncio.to_thread(stages.assemble, request)

    with Ledger(world.services.database_url) as ledger:
        ledger.enqueue(WANTED.id, [(one, "personal") for group in groups for one in group])
        async with SmtpPool(sink.url, connections=3, timeout_s=10) as pool:
            caps = Caps(world.online._redis)
            sender = Sender(WANTED, assemble, ledger, pool, caps, Meters())
            for _ in range(1 + max(1, len(lost))):
                claims = [ledger.claim_these(WANTED.id, group) for group in groups]
                chunks = [sender.send_chunk(claim) for claim in claims if len(claim)]
                for failed in await asyncio.gather(*chunks, return_exceptions=True):
                    if failed is not None and not isinstance(failed, ServiceUnavailable):
                        raise failed
                with world.engine.begin() as connection:
                    connection.exec_driver_sql("update deliveries set next_at = now()")
        for row in ledger.rows(WANTED.id).iter_rows(named=True):
            user = recipient_of(row["user_id"])
            assert row["items"] is None or row["items"] == picks_of(user)[:3]


def assert_all_its_own(signer: LinkSigner, rcpt_to: str, content: bytes) -> None:
    """One mail names its recipient, and nobody else in any part of it."""
    user, name = rcpt_to.partition("@")[0], f"Name{USERS.index(rcpt_to.partition('@')[0])}"
    mail = message_from_bytes(content, policy=default)
    parts = [mail.get_body((kind,)) for kind in ("html", "plain")]
    text = "\n".join([str(mail.items()), *(part.get_content() for part in parts if part)])
    assert mail["To"].addresses[0].addr_spec == rcpt_to
    assert set(re.findall(r"\bName\d+\b", text)) <= {name}
    assert set(re.findall(r"\bu\d\d@[a-z.]+", text)) <= {rcpt_to}
    links = re.findall(r"/([coup])/([\w-]+)", text)
    assert {"c", "o", "u"} <= {kind for kind, _ in links}
    for kind, token in links:
        link = signer.verify(token, LinkKind(kind))
        assert (link.campaign_id, recipient_of(link.user_id)) == (WANTED.id, user)
    shown = re.findall(r"Thing number (\d+)", parts[0].get_content())  # type: ignore[union-attr]
    mine = [str(int(item[-2:])) for item in picks_of(user)[:3]]
    assert [number for number in dict.fromkeys(shown) if number in mine][:3] == mine


@settings(
    max_examples=6,
    deadline=None,
    phases=[
        Phase.explicit,
        Phase.generate,
    ],  # a failure is told as it is
)
@given(
    order=st.permutations(PEOPLE),
    cuts=st.lists(st.integers(1, SIDE - 1), max_size=4),
    faults=st.dictionaries(st.sampled_from(PEOPLE), st.sampled_from(FAULTS), max_size=5),
    lost=st.sets(st.integers(0, 3), max_size=2),
)
def test_every_mail_holds_only_its_own_recipients_data(
    world, stages, sink, order, cuts, faults, lost
):
    borders = [0, *sorted({*cuts}), SIDE]
    parts = [order[a:b] for a, b in pairwise(borders)]
    sink.messages.clear()
    sink.faults.clear()
    for user, fault in faults.items():
        domain = "gmail.com" if user < "u15" else "mail.example"
        sink.fault(fault, times=1, recipient=f"{user}@{domain}")

    asyncio.run(send(world, stages, sink, parts, lost))

    signer = LinkSigner(world.services.link_key)
    received = [message.rcpt_to for message in sink.messages]
    assert len(set(received)) == len(received)
    assert len(received) >= SIDE - len(faults)
    for message in sink.messages:
        user = message.rcpt_to.partition("@")[0]
        assert message.mail_from.startswith("bounces+")
        assert user in PEOPLE
        assert_all_its_own(signer, message.rcpt_to, message.content)
