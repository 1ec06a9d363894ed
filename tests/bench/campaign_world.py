"""A shop of 10,000 items with as many subscribers as asked for, and postfix's smtp-sink."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl

from reco.campaigns.campaign import Campaign
from reco.catalogue import Catalogue
from reco.database import open_database
from reco.embedded import Services, connect_redis
from reco.events.lake import Lake
from reco.features.online import FeaturesMeta, OnlineStore
from reco.subscribers.store import SubscriberStore
from reco.tables import CHAMPION_KEY, SUBSCRIBERS, item_keys
from tests.bench.peers_campaign import BLOCK, FILLER, PAGE
from tests.model_world import DAY, artifact_of, catalogue_of, histories_of
from tests.serving import free_port

ITEMS: Final = 10_000
RECORDS: Final = 100  # purchases of each subscriber
LOADED: Final = 1_000  # subscribers at a time
SINK: Final = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/libexec/postfix")
FILLERS: Final = 190  # sentences that make the HTML 25 KB
FOOTER: Final = """<mj-section><mj-column><mj-text>{{ postal_address }}
<a href="{{ unsubscribe_url }}">Unsubscribe</a></mj-text></mj-column></mj-section>"""
TEXT: Final = """For {{ user.first_name }}
{% for item in recommendations[:5] %}
* {{ item.title }}, {{ item.price }}: {{ item.url }}
{% endfor %}
Unsubscribe: {{ unsubscribe_url }}
{{ postal_address }}
"""
AS_OF: Final = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=DAY)


def shop(services: Services, subscribers: int) -> None:
    """Items, subscribers, histories, a champion and a template in the stores of `services`."""
    catalogue = catalogue_of(ITEMS)
    Lake(services.lake).write_items(catalogue.frame)
    _template(services.home / "template")
    directory = services.home / "bench"
    artifact_of(catalogue).save(str(directory))
    with closing(connect_redis(services.redis_url)) as client:
        client.set(
            CHAMPION_KEY, json.dumps({"version": directory.name, "directory": str(directory)})
        )
        _people(services, catalogue, OnlineStore(client), range(subscribers))


def more_people(services: Services, first: int, last: int) -> None:
    """Subscribers with the numbers `first` to `last` - 1, to those who are there."""
    with closing(connect_redis(services.redis_url)) as client:
        _people(services, catalogue_of(ITEMS), OnlineStore(client), range(first, last))


def _template(folder: Path) -> None:
    """The plain script's page with the lines that every mail must have, about as many bytes."""
    folder.mkdir()
    page = PAGE.replace("BLOCK", BLOCK.replace("USD", "{{ item.reason }}"))
    page = page.replace("{{ user }}", "{{ user.first_name }}").replace("FILLER", FILLER * FILLERS)
    (folder / "template.mjml").write_text(page.replace("</mj-body>", f"{FOOTER}</mj-body>"))
    (folder / "text.jinja").write_text(TEXT)
    (folder / "subject.jinja").write_text("{{ recommendations[0].title }} for you")
    (folder / "preheader.jinja").write_text("{{ recommendations | length }} picks")
    (folder / "meta.yaml").write_text("description: As large as the plain script's mail.\n")


def _people(services: Services, catalogue: Catalogue, online: OnlineStore, numbers: range) -> None:
    ids = [f"u{i:06d}" for i in numbers]
    schema = pl.DataFrame(pl.from_arrow(SUBSCRIBERS.empty_table())).schema
    engine = open_database(services.database_url)
    store = SubscriberStore(engine)
    for start in range(0, len(ids), LOADED):
        page = ids[start : start + LOADED]
        rows = [dict.fromkeys(schema) | _person(user) for user in page]
        store.upsert(pl.DataFrame(rows, schema=schema))
        online.load(page, histories_of(catalogue, [RECORDS] * len(page), seed=start))
    engine.dispose()
    popular = item_keys(catalogue.item_ids[:100].tolist())
    online.write_meta(FeaturesMeta(AS_OF, numbers.stop, popular))


def _person(user: str) -> dict[str, object]:
    return {
        "user_id": user,
        "email": f"{user}@mail.example",
        "first_name": f"Name {user}",
        "consent_tracking": True,
    }


def campaign(services: Services, name: str, **changes: object) -> Campaign:
    """Five picks from the model for everybody, with caps and a limit for each category."""
    settings = {
        "id": name,
        "template": str(services.home / "template"),
        "from_name": "Corner Shop",
        "from_email": "news@shop.example",
        "postal_address": "Corner Shop, 1 Example Street, 10115 Berlin",
        "picks": 5,
        "arms": [{"name": "personal", "weight": 1, "slate": "model"}],
        "rules": {"frequency_cap": {"times": 9, "days": 7}, "max_per_category": 3},
    }
    return Campaign.model_validate(settings | changes)


@contextmanager
def smtp_sink() -> Iterator[int]:
    """Port of a running smtp-sink. Raises SystemExit when postfix is not installed."""
    if SINK is None:
        raise SystemExit("smtp-sink is missing: it comes with Debian's package postfix.")
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with subprocess.Popen(
        [SINK, *user, "-c", f"127.0.0.1:{port}", "200"], stdout=subprocess.DEVNULL
    ) as sink:
        try:
            _wait_for(port)
            yield port
        finally:
            sink.terminate()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("smtp-sink does not come up.")
