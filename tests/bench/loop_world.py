"""The installation of bench_loop: its commands, its SIMULATED shop, and its readers' week."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import polars as pl
from click.testing import CliRunner
from sqlalchemy import update

from reco.cli import main
from reco.database import SUBSCRIBERS, open_database
from reco.embedded import Services
from render.links import LinkSigner
from tests.taste_world import (
    HISTORY_DAYS,
    ITEMS,
    NEW,
    Deed,
    Habits,
    Mail,
    Mailbox,
    Shoppers,
    act,
    deeds,
)  # fmt: skip

ROOT: Final = Path(__file__).resolve().parents[2]
FOLLOWED: Final = 0.8
THREADS: Final = 8
DSN: Final = """\
From: MAILER-DAEMON@mx.example
To: news@shop.example
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

It could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

Final-Recipient: rfc822; {user}@shopper.example
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--b
Content-Type: message/rfc822

From: news@shop.example
To: {user}@shopper.example
Message-ID: {message_id}

Hi

--b--
"""


@dataclass
class Loop:
    """One installation in a folder of its own, and the commands on it."""

    home: Path
    port: int
    shoppers: Shoppers
    inside: bool = False  # commands run in this process, on the cluster that it is connected to

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        own = {"RECO_HOME": str(self.home), "RECO_PUBLIC_URL": self.url, "PYTHONPATH": str(ROOT)}
        return os.environ | own

    def reco(self, *arguments: str) -> dict[str, Any]:
        """A command to its end; gives what it says with --json."""
        began = time.perf_counter()
        said = self._in_process(*arguments) if self.inside else self._as_a_process(*arguments)
        took = time.perf_counter() - began
        print(f"  reco {' '.join(arguments[:2])}: {took:.0f} s", flush=True)
        return said

    def _as_a_process(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "reco", *arguments, "--json"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stdout[-3_000:] + done.stderr[-3_000:])
        return dict(json.loads(done.stdout))

    def _in_process(self, *arguments: str) -> dict[str, Any]:
        """The same command by its entry point."""
        done = CliRunner().invoke(main, [*arguments, "--json"], env=self.environment)
        if done.exit_code:
            raise RuntimeError(done.output) from done.exception
        return dict(json.loads(done.stdout))

    @contextmanager
    def running(self, *arguments: str) -> Iterator[None]:
        """A command that goes on until the block ends."""
        log = (self.home.parent / f"{arguments[0]}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "reco", *arguments],
            cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def write_shop(loop: Loop, folder: Path) -> None:
    """Items, shoppers and a history that knows nothing of this week's items."""
    shop = loop.shoppers
    pl.DataFrame(
        {"item_id": shop.items, "title": [f"Thing {i}" for i in range(ITEMS)],
         "category": [f"aisle {i % 12}" for i in range(ITEMS)], "price": [9.0] * ITEMS}
    ).write_csv(folder / "items.csv")  # fmt: skip
    pl.DataFrame(
        {"user_id": shop.ids, "email": [f"{user}@shopper.example" for user in shop.ids]}
    ).write_csv(folder / "subscribers.csv")
    week_ago = datetime.now(UTC) - timedelta(days=7)
    since = week_ago - timedelta(days=HISTORY_DAYS)
    pl.DataFrame(shop.purchases(6, since, week_ago, ITEMS - NEW, 1)).write_csv(
        folder / "events.csv"
    )


def follow(services: Services, shoppers: Shoppers) -> set[str]:
    """Some agree to be followed, as on the preference page."""
    rng = np.random.default_rng((shoppers.seed, 7))
    followed = {user for user in shoppers.ids if rng.random() < FOLLOWED}
    engine = open_database(services.database_url)
    with engine.begin() as connection:
        where = SUBSCRIBERS.c.user_id.in_(followed)
        connection.execute(update(SUBSCRIBERS).where(where).values(consent_tracking=True))
    engine.dispose()
    return followed


def live(
    loop: Loop, services: Services, client: httpx.Client, shown: dict[str, Sequence[str]],
    followed: set[str], habits: Habits,
) -> list[Deed]:  # fmt: skip
    """The readers' week, at once, through the public doors."""
    assert services.outbox is not None
    mailbox, signer = Mailbox(services.outbox), LinkSigner(services.link_key)
    done = deeds(loop.shoppers, habits, shown, followed)
    began = time.perf_counter()

    def one(numbered: tuple[int, Deed]) -> Mail:
        number, deed = numbered
        mail = mailbox.read(deed.user_id, signer)
        act(deed, number, mail)
        return mail

    with ThreadPoolExecutor(THREADS) as pool:
        mails = list(pool.map(one, enumerate(done)))
    for deed, mail in zip(done, mails, strict=True):
        if deed.bounced:
            raw = DSN.format(user=deed.user_id, message_id=mail.message_id)
            headers = {"content-type": "message/rfc822"}
            answer = client.post("/v1/inbound", content=raw.encode(), headers=headers)
            assert answer.json()["reports"] == {"hard": 1}, answer.text
    bought = [
        {"event_id": f"mail-{deed.user_id}-{item}", "user_id": deed.user_id, "type": "purchase",
         "timestamp": datetime.now(UTC).isoformat(), "item_id": item, "value": 9.0}
        for deed in done for item in deed.bought
    ]  # fmt: skip
    post(client, bought)
    print(f"  {len(done):,} mails were acted on, {len(bought):,} purchases, "
          f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    return done


def post(client: httpx.Client, events: list[dict[str, Any]]) -> None:
    for start in range(0, len(events), 1_000):
        answer = client.post("/v1/events", json=events[start : start + 1_000])
        assert answer.status_code == 202, answer.text
