"""Who takes a domain's mail is found out beside the chunks, which ask for the same at once."""

import asyncio

from reco.campaigns.receivers import Receivers
from reco.subscribers.mail_domains import MailDomains
from tests.name_server import running_name_server

GOOGLE = "aspmx.l.google.com"


def known(receivers: Receivers, *domains: str) -> list[bool]:
    return [bool(receivers.servers(f"ana@{domain}")) for domain in domains]


async def test_chunks_that_wait_for_the_same_answers_silence_nobody():
    with running_name_server() as dns:
        dns.zones |= {name: {"MX": [f"1 {GOOGLE}."]} for name in ("a.example", "b.example")}
        receivers = Receivers(MailDomains(dns.address), patience_s=20)
        await asyncio.gather(*(receivers.ask(["ana@a.example"]) for _ in range(3)))
        await receivers.ask(["ana@b.example"])

    assert known(receivers, "a.example", "b.example") == [True, True]
    assert dns.asked["a.example"] == 1


async def test_a_domain_without_an_answer_silences_no_other():
    with running_name_server() as dns:
        dns.zones |= {name: {"MX": [f"1 {GOOGLE}."]} for name in ("a.example", "b.example")}
        dns.faults["slow.example"] = "silence"
        receivers = Receivers(MailDomains(dns.address, timeout_s=0.2), patience_s=20)
        for domain in ("a.example", "slow.example", "b.example"):
            await receivers.ask([f"ana@{domain}"])

    assert known(receivers, "a.example", "slow.example", "b.example") == [True, False, True]


async def test_where_nothing_answers_nothing_more_is_asked_for_a_while():
    now = 0.0
    with running_name_server() as dns:
        dns.faults |= {"a.example": "silence", "b.example": "silence"}
        receivers = Receivers(MailDomains(dns.address, timeout_s=0.2), 20, lambda: now)
        await receivers.ask(["ana@a.example"])
        await receivers.ask(["ana@b.example"])
        assert dns.asked["b.example"] == 0
        now = 61.0
        await receivers.ask(["ana@b.example"])

    assert dns.asked["b.example"] > 0
