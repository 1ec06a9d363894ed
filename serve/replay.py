"""A mail that was sent, made again from its decision record: the same bytes, and why.

Takes the id of a delivery or its Message-ID; needs the lake, the ledger and the keys, no cluster.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from sqlalchemy import Row, and_, select
from sqlalchemy.engine import Engine

from reco import __version__
from reco.campaigns.campaign import Campaign
from reco.campaigns.decisions import records
from reco.campaigns.delivery import delivery_id, recipient_of
from reco.catalogue import Catalogue
from reco.database import DELIVERIES
from reco.embedded import Services
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.models.slates import Reason, Rung, Slates
from reco.rules.fates import Fate
from serve.archive import Archive, Bundle, fingerprints
from serve.chunks import Assembled, Recipients
from serve.gaps import titles_of
from serve.preview import preview_page
from serve.workshop import Mail, Shown, Workshop


@dataclass(frozen=True, slots=True)
class Replay:
    """What was decided for a mail, and the mail.

    same  whether these are the bytes that were sent; if not, `changed` says why
    """

    page: Path
    message: Path
    campaign: str
    user_id: str
    state: str
    same: bool
    changed: list[str]
    arm: str
    propensity: float
    model: str
    features: str
    template: str
    catalogue: str
    reco: str
    fallback: str
    copy: str
    candidates: list[str]


def write_replay(
    delivery: str, services: Services, lake: Lake, engine: Engine, out: Path
) -> Replay:
    """Make a mail again; its page goes to `out`, its bytes beside it (.eml).

    `delivery` is a Message-ID, or CAMPAIGN/USER, with /KEY where an idempotency key was given.
    Raises NotFound, naming what is missing, when it cannot be made.
    """
    row = _row(delivery, engine)
    found = records(lake, row.campaign_id, row.user_id)
    if found.is_empty():
        raise NotFound(
            f"There is no decision record of {delivery}.",
            f"Its delivery is {row.state}. Records leave by `reco tidy --decisions` and when a "
            "person is erased; a sender that died takes those of its last seconds along.",
        )
    record = found.row(0, named=True)
    archive = Archive(lake)
    bundle = archive.bundle(record["made_of"])
    catalogue = archive.catalogue(bundle.catalogue)
    mail = _made_again(record, bundle, catalogue, archive, services)
    changed = _other_attempt(record, row)
    if xxhash.xxh3_64_intdigest(mail.message) != record["message_hash"]:
        changed += _changed(bundle, services)
    made = _assembled(record, mail, catalogue)
    spec = _loadable(bundle, bundle.campaign["template"])
    user = recipient_of(row.user_id)
    campaign = Campaign.model_validate(spec)
    out.write_text(preview_page(campaign, user, made, services, sent=True), encoding="utf-8")
    message = out.with_suffix(".eml")
    message.write_bytes(mail.message)
    return Replay(
        page=out.resolve(),
        message=message.resolve(),
        campaign=row.campaign_id,
        user_id=user,
        state=row.state,
        same=not changed,
        changed=changed,
        arm=record["arm"],
        propensity=record["propensity"],
        model=record["model"],
        features=record["features"],
        template=bundle.template,
        catalogue=bundle.catalogue,
        reco=bundle.reco,
        fallback=record["fallback"],
        copy=record["copy"],
        candidates=_candidates(record, catalogue),
    )


def _row(delivery: str, engine: Engine) -> Row[Any]:
    """The row of the ledger. Raises NotFound."""
    c = DELIVERIES.c
    if "/" in delivery:
        campaign_id, user_id, *key = delivery.split("/", 2)
        wanted = and_(c.campaign_id == campaign_id, c.user_id == delivery_id(user_id, *key))
    else:
        wanted = and_(c.message_id == f"<{delivery.strip('<> ')}>")
    with engine.connect() as connection:
        row = connection.execute(select(DELIVERIES).where(wanted)).first()
    if row is None:
        raise NotFound(
            f"There is no delivery {delivery}.",
            todo="Name it by its Message-ID, or as CAMPAIGN/USER, or CAMPAIGN/USER/KEY.",
        )
    return row


def _loadable(bundle: Bundle, template: str) -> dict[str, Any]:
    """The configuration with another template; its audience may name a file that is gone."""
    return bundle.campaign | {"template": template, "audience": {}}


def _made_again(
    record: dict[str, Any],
    bundle: Bundle,
    catalogue: Catalogue,
    archive: Archive,
    services: Services,
) -> Mail:
    """The mail, by the workshop that made it first, from what was kept."""
    with ExitStack() as stack:
        folder = stack.enter_context(archive.template(bundle.template))
        spec = json.dumps(_loadable(bundle, str(folder))).encode()
        there = replace(services, public_url=bundle.public_url)
        workshop = Workshop(spec, catalogue, there)
        popular = workshop.popular(_keys(record["popular"], catalogue))
        shown = Shown(
            rows=np.array(record["rows"], np.int32),
            reasons=np.array(record["reasons"], np.uint8),
            gaps=np.array(record["gaps"], np.int64),
            bought=np.array(record["bought"], np.int32),
            curious=record["curious"],
        )
        recipients = Recipients(
            deliveries=[record["delivery"]],
            user_ids=[recipient_of(record["delivery"])],
            arms=[record["arm"]],
            emails=[record["email"]],
            first_names=[record["first_name"]],
            languages=[record["language"]],
            tracked=[record["tracked"]],
            segments=[record["segment"]],
            interests=[()],
        )
        return workshop.mail(recipients, 0, shown, record["made_at"], popular)


def _keys(rows: list[int], catalogue: Catalogue) -> Any:
    places = np.array(rows, np.int64)
    return np.where(places < 0, np.uint64(0), catalogue.keys[places])


def _assembled(record: dict[str, Any], mail: Mail, catalogue: Catalogue) -> Assembled:
    """The mail as the preview page takes it."""
    shown = [row for row in record["rows"] if row >= 0]
    k = len(shown)
    slates = Slates(
        items=_keys(shown, catalogue)[None, :],
        scores=np.array([record["scores"][:k]], np.float32),
        reasons=np.array([record["reasons"][:k]], np.uint8),
        rungs=np.array([record["rungs"][:k]], np.uint8),
    )
    removed: dict[str, list[str]] = {}
    for row, fate in zip(record["candidates"], record["fates"], strict=True):
        if fate not in (Fate.LEFT, Fate.SHOWN) and row >= 0:
            removed.setdefault(Fate(fate).name.lower(), []).append(str(catalogue.item_ids[row]))
    return Assembled(
        deliveries=[record["delivery"]],
        arms=[record["arm"]],
        addresses=[record["email"]],
        message_ids=[mail.message_id],
        messages=[mail.message],
        slates=slates,
        item_ids=[[str(catalogue.item_ids[row]) for row in shown]],
        titles=[[catalogue.frame["title"][row] or "" for row in shown]],
        bought=[titles_of(np.array(record["bought"][:k], np.int32), catalogue)],
        withheld=[],
        broken=[],
        model_version=record["model"],
        fallback=record["fallback"],
        took_ms={},
        rendered=[mail.rendered],
        removed=removed,
    )


def _candidates(record: dict[str, Any], catalogue: Catalogue) -> list[str]:
    """What was considered, best first, and what became of it."""
    columns = ("candidates", "candidate_scores", "candidate_rungs", "fates")
    places = zip(*(record[name] for name in columns), strict=True)
    lines = [
        f"{catalogue.item_ids[row]}: {score:.4f}, {_word(Rung(rung))}, {_word(Fate(fate))}"
        for row, score, rung, fate in places
        if row >= 0
    ]
    known = {row for row in record["candidates"] if row >= 0}
    reasons = zip(record["rows"], record["reasons"], record["rungs"], strict=True)
    filled = [
        f"{catalogue.item_ids[row]}: {_word(Reason(why))}, {_word(Rung(rung))}, filled in"
        for row, why, rung in reasons
        if row >= 0 and row not in known
    ]
    return lines + filled


def _word(code: IntEnum) -> str:
    return code.name.lower()


def _other_attempt(record: dict[str, Any], row: Row[Any]) -> list[str]:
    """Whether the ledger knows of a later claim, which may have sent other bytes."""
    if record["fence"] == row.fence:
        return []
    return [
        f"This is what claim {record['fence']} made; the last one was {row.fence}, "
        "whose sender wrote no record."
    ]


def _changed(bundle: Bundle, services: Services) -> list[str]:
    """Why the bytes differ, as far as the versions tell."""
    now = fingerprints(services)
    facts = (
        (bundle.reco != __version__, f"reco was {bundle.reco}, and is {__version__}."),
        (bundle.links != now["links"], "The key of the links has changed (keys/link)."),
        (
            (bundle.dkim, bundle.dkim_selector) != (now["dkim"], now["dkim_selector"]),
            "The DKIM key or its selector has changed.",
        ),
    )
    told = [sentence for true, sentence in facts if true]
    return told or ["Another version of a library draws it in another way."]
