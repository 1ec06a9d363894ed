"""PostgreSQL: subscribers, consent, suppression, campaigns and the ledger of deliveries.

SQLAlchemy Core describes the tables; hot paths use psycopg with COPY and = ANY(...).
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    SmallInteger,
    String,
    Table,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from reco.errors import ServiceUnavailable

METADATA = MetaData()
WHEN = DateTime(timezone=True)

SUBSCRIBERS = Table(
    "subscribers",
    METADATA,
    Column("user_id", String, primary_key=True),
    Column("email", String),  # null: recommended to, never mailed
    Column("first_name", String),
    Column("language", String),
    Column("region", String),
    Column("timezone", String),
    Column("device", String),
    Column("plan", String),
    Column("signup_at", WHEN),
    Column("signup_source", String),
    Column("consent_mail", Boolean, nullable=False, server_default="true"),
    Column("consent_profiling", Boolean, nullable=False, server_default="true"),
    Column("consent_tracking", Boolean, nullable=False, server_default="false"),
    Column("attributes", JSONB, nullable=False, server_default="{}"),
    Column("updated_at", WHEN, nullable=False, server_default=func.now()),
)

# Every statement on consent that was ever made; rows are only added (reco.subscribers.consent).
CONSENTS = Table(
    "consents",
    METADATA,
    Column("consent_id", BigInteger, primary_key=True, autoincrement=True),
    Column("user_id", String, nullable=False, index=True),
    Column("purpose", String, nullable=False),  # mail, profiling, tracking
    Column("given", Boolean, nullable=False),
    Column("text_version", String, nullable=False),  # of the words that were agreed to
    Column("source", String, nullable=False),  # form, import, page
    Column("given_at", WHEN, nullable=False),
    Column("recorded_at", WHEN, nullable=False, server_default=func.now()),
)

# What the earliest event said of a field of somebody's profile (reco.subscribers.first_touch).
FIRST_TOUCHES = Table(
    "first_touches",
    METADATA,
    Column("user_id", String, primary_key=True),
    Column("field", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("touched_at", WHEN, nullable=False),
)

# Who was deleted: an event from before that makes nobody a subscriber again, and rows follow it.
DEPARTURES = Table(
    "departures",
    METADATA,
    Column("user_id", String, primary_key=True),
    Column("left_at", WHEN, nullable=False, index=True),
)

# Keyed by HMAC of the normalised address, so that it survives erasure of the subscriber.
SUPPRESSIONS = Table(
    "suppressions",
    METADATA,
    Column("address_hash", LargeBinary, primary_key=True),
    # unsubscribe, complaint, hard_bounce, invalid, manual
    Column("reason", String, nullable=False),
    Column("source", String, nullable=False),
    Column("since", WHEN, nullable=False, server_default=func.now()),
    Column("expires_at", WHEN),  # null: for ever
    Index("suppressions_since", "since"),  # senders ask twice a second who left
)

CAMPAIGNS = Table(
    "campaigns",
    METADATA,
    Column("campaign_id", String, primary_key=True),
    Column("state", String, nullable=False),  # draft, running, paused, finished, cancelled
    Column("config", JSONB, nullable=False),
    Column("created_at", WHEN, nullable=False, server_default=func.now()),
    Column("started_at", WHEN),
    Column("finished_at", WHEN),
    Column("note", String),  # why it paused
)

# queued -> claimed -> handing_off (durable before DATA) -> accepted, deferred, failed or
# uncertain; suppressed instead of any of them. One row a recipient and campaign: nobody gets
# it twice.
DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("campaign_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("state", String, nullable=False, server_default="queued"),
    Column("arm", String, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),  # an older one is refused
    Column("lease_until", WHEN),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("next_at", WHEN),  # of a deferred one
    Column("message_id", String),
    Column("rung", SmallInteger),  # lowest rung of the ladder used (models.slates.Rung)
    Column("items", ARRAY(String)),  # shown, in their order
    Column("scores", ARRAY(Float)),
    Column("reasons", ARRAY(SmallInteger)),
    Column("reply", String),  # of the SMTP server, or why it was suppressed or failed
    Column("size_bytes", Integer),
    Column("queued_at", WHEN, nullable=False, server_default=func.now()),
    Column("settled_at", WHEN),
    # Claims walk the short queue, not the whole campaign.
    Index("deliveries_queued", "campaign_id", "user_id", postgresql_where=text("state = 'queued'")),
    Index("deliveries_due", "campaign_id", "next_at", postgresql_where=text("state = 'deferred'")),
    # By which bounces and complaints find their mail.
    Index("deliveries_message", "message_id", postgresql_where=text("message_id is not null")),
    # What a dead sender may have left behind. No campaign_id: hand-offs must find rows by the key.
    Index("deliveries_leased", "lease_until", postgresql_where=text("lease_until is not null")),
)

# What came back for a mail. Keyed like the suppressions, so that it names nobody by itself.
BOUNCES = Table(
    "bounces",
    METADATA,
    Column("address_hash", LargeBinary, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("kind", String, primary_key=True),  # hard, soft, policy, complaint, out_of_office
    Column("campaign_id", String, nullable=False),
    Column("status", String, nullable=False),  # enhanced status code, "" unknown
    Column("why", String, nullable=False),
    Column("noted_at", WHEN, nullable=False, server_default=func.now()),
)

# Which copy a mail got and how likely that was, from before it was sent: what the bandit learns of.
COPY_CHOICES = Table(
    "copy_choices",
    METADATA,
    Column("campaign_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),  # of the delivery
    Column("slot", String, primary_key=True),
    Column("key", String, nullable=False, index=True),  # campaigns of one key learn together
    Column("segment", String, nullable=False),
    Column("arm", String, nullable=False),
    Column("propensity", Float, nullable=False),
    Column("chosen_at", WHEN, nullable=False, server_default=func.now()),
)

FENCES = Sequence("delivery_fences", metadata=METADATA)  # one number a claim, ever rising
SCHEMA_LOCK = 0x7265636F  # "reco"; processes that start together make the tables one by one


# Says who changed to those that listen, whoever writes the table: reco, or the shop's own SQL.
PROFILE_CHANNEL: Final = "reco_profiles"
LONGEST_NOTE: Final = 7_999  # bytes that PostgreSQL carries; who is named longer is found by a look
_HAS_TRIGGERS: Final = """
    select count(*) = 2 from pg_trigger
    where tgrelid = 'subscribers'::regclass and tgname in ('reco_stamped', 'reco_changed')
"""
_TRIGGERS: Final = f"""
    create or replace function reco_stamped() returns trigger language plpgsql as $$
    begin
        new.updated_at := now();
        return new;
    end $$;
    create or replace function reco_changed() returns trigger language plpgsql as $$
    declare
        who text := coalesce(new.user_id, old.user_id);
    begin
        if tg_op = 'DELETE' then
            insert into departures (user_id, left_at) values (who, now())
                on conflict (user_id) do update set left_at = excluded.left_at;
            delete from first_touches where user_id = who;
        end if;
        if octet_length(who) <= {LONGEST_NOTE} then
            perform pg_notify('{PROFILE_CHANNEL}', who);
        end if;
        return null;
    end $$;
    create or replace trigger reco_stamped before update on subscribers
        for each row execute function reco_stamped();
    create or replace trigger reco_changed after insert or update or delete on subscribers
        for each row execute function reco_changed();
"""


def open_database(url: str) -> Engine:
    """Engine on `url` (postgresql://…) with the tables made when missing.

    Raises ServiceUnavailable when the server does not answer.
    """
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), pool_pre_ping=True
    )
    try:
        with engine.begin() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            METADATA.create_all(connection)
            if not connection.exec_driver_sql(_HAS_TRIGGERS).scalar_one():
                connection.exec_driver_sql(_TRIGGERS)
    except OperationalError as error:
        raise ServiceUnavailable(
            f"PostgreSQL at {engine.url.render_as_string(hide_password=True)} does not answer.",
            str(error.orig).strip().splitlines()[0],
            "Check RECO_DATABASE_URL, or leave it out to use the embedded server.",
        ) from error
    return engine
