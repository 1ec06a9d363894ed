"""A person or a program: a machine score with its reasons for every open and click.

Takes touches (opens and clicks with agent, address, method, time and the mail's acceptance), gives
the same rows judged. Nothing is dropped: reports count with and without what machines did.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

import polars as pl

# How surely each reason speaks of a program, 0..1; several add up as independent witnesses do.
WEIGHTS: Final = {
    "agent": 0.99,  # calls itself a crawler, a scanner, a library
    "network": 0.95,  # comes from addresses of a mail scanner
    "head": 0.99,  # asked for headers only
    "trap": 0.99,  # followed a link that no reader can see
    "burst": 0.90,  # three links of one mail within two seconds
    "sweep": 0.45,  # every link of the mail within ten seconds
    "hasty": 0.90,  # sooner after acceptance than a mail can be read
    "early": 0.30,  # within ten seconds of acceptance
    "crowd": 0.60,  # one network followed links of many recipients at the same time
    "bare": 0.60,  # an agent that says nothing at all
    "apple_proxy": 0.90,  # fetched by Mail Privacy Protection, read or not
    "mail_proxy": 0.30,  # fetched by the proxy of a mail provider, mostly when somebody reads
}
MACHINE: Final = 0.5  # from this score on a touch counts as a program's
TRAP_SLOT: Final = 65_535  # the number of the hidden link

HASTY_S: Final = 3
EARLY_S: Final = 10
BURST_S: Final = 2
BURST_LINKS: Final = 3
SWEEP_S: Final = 10
CROWD_S: Final = 60
CROWD_MAILS: Final = 5

PROXIES: Final = r"GoogleImageProxy|YahooMailProxy"
BARE: Final = r"^\s*(Mozilla/5\.0)?\s*$"  # Apple's proxy says just this
# Words of scanners and libraries that no list has yet.
TELLTALE: Final = (
    r"(?i)bot\b|crawl|spider|scan|preview|proofpoint|mimecast|barracuda|safelinks|symantec"
    r"|headless|python|curl/|wget/|okhttp|axios|libwww|java/|go-http|apache-http|node-fetch"
)
Network = IPv4Network | IPv6Network
MAIL: Final = ("campaign_id", "delivery_id")

TOUCHES: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "event_id": pl.String,
    "type": pl.String,  # click, open
    "timestamp": pl.Datetime("us", "UTC"),
    "campaign_id": pl.String,
    "delivery_id": pl.String,
    "slot": pl.Int32,
    "user_agent": pl.String,
    "address": pl.String,  # an address or a network; the door keeps a network only
    "method": pl.String,
    "accepted_at": pl.Datetime("us", "UTC"),
    "links": pl.Int32,  # tracked links of the mail
}


@dataclass(frozen=True, slots=True)
class Networks:
    """Address ranges in CIDR notation. Apple publishes more of its own; so do other scanners."""

    apple: tuple[str, ...] = ("17.0.0.0/8",)
    scanners: tuple[str, ...] = ("148.163.128.0/19", "209.222.80.0/21")  # Proofpoint, Barracuda


def touches(events: pl.LazyFrame, deliveries: pl.DataFrame) -> pl.DataFrame:
    """Opens and clicks of the ledger's accepted mails, as TOUCHES.

    events: rows of tables.EVENTS whose attributes may hold user_agent, address and method.
    deliveries: campaign_id, user_id (of the delivery), items, accepted_at.
    """
    mails = deliveries.select(
        "campaign_id",
        pl.col("user_id").alias("delivery_id"),
        pl.col("accepted_at").dt.convert_time_zone("UTC").dt.cast_time_unit("us"),
        pl.col("items").list.len().cast(pl.Int32).alias("links"),
    )
    return (
        events.filter(pl.col("type").is_in(["click", "open"]))
        .with_columns(
            pl.col("attributes").str.json_path_match(f"$.{name}").alias(name)
            for name in ("user_agent", "address", "method")
        )
        .join(mails.drop_nulls("accepted_at").lazy(), on=MAIL)
        .select(pl.col(name).cast(kind) for name, kind in TOUCHES.items())
        .collect()
    )


def judge(touches: pl.DataFrame, networks: Networks | None = None) -> pl.DataFrame:
    """The rows with machine (score 0..1), reasons (list of names of WEIGHTS) and human (bool).

    A click of a program says nothing of the reader; the same reader may click again later, so
    every touch is judged by itself and its neighbours, never a whole mail.
    """
    rows = touches.with_row_index("row")
    rows = rows.join(_agents(rows), on="user_agent", how="left", nulls_equal=True)
    rows = rows.join(
        _addresses(rows, networks or Networks()), on="address", how="left", nulls_equal=True
    )
    rows = _with_company(rows.sort(*MAIL, "timestamp"))
    click, since = pl.col("type") == "click", pl.col("timestamp") - pl.col("accepted_at")
    soon = click & (since >= timedelta(0))
    apple = ~click & pl.col("from_apple") & pl.col("says_nothing")
    found = {
        "agent": pl.col("is_program") & (click | ~pl.col("is_proxy")),
        "network": pl.col("from_scanner"),
        "head": pl.col("method").str.to_uppercase() == "HEAD",
        "trap": click & (pl.col("slot") == TRAP_SLOT),
        "burst": click & (pl.col("in_burst") >= BURST_LINKS),
        "sweep": click & (pl.col("links") > 1) & (pl.col("in_sweep") >= pl.col("links")),
        "hasty": soon & (since < timedelta(seconds=HASTY_S)),
        "early": soon & since.is_between(timedelta(seconds=HASTY_S), timedelta(seconds=EARLY_S)),
        "crowd": click & (pl.col("in_crowd") >= CROWD_MAILS),
        "bare": pl.col("says_nothing") & ~apple,
        "apple_proxy": apple,
        "mail_proxy": ~click & pl.col("is_proxy"),
    }
    # A null is something that nobody recorded: no reason to suspect anybody.
    flags = rows.with_columns(test.fill_null(value=False).alias(n) for n, test in found.items())
    doubt = pl.lit(1.0)
    for name, weight in WEIGHTS.items():
        doubt = doubt * pl.when(name).then(1 - weight).otherwise(1.0)
    named = [pl.when(name).then(pl.lit(name)) for name in WEIGHTS]
    return (
        flags.with_columns(
            (1 - doubt).alias("machine"), pl.concat_list(named).list.drop_nulls().alias("reasons")
        )
        .with_columns((pl.col("machine") < MACHINE).alias("human"))
        .sort("row")
        .select(*touches.columns, "machine", "reasons", "human")
    )


def _agents(rows: pl.DataFrame) -> pl.DataFrame:
    """What each distinct agent says of itself."""
    agent, distinct = pl.col("user_agent"), rows["user_agent"].unique()
    listed = pl.Series([a is not None and names_itself(a) for a in distinct], dtype=pl.Boolean)
    return distinct.to_frame().select(
        agent,
        (listed | agent.str.contains(TELLTALE)).alias("is_program"),
        agent.str.contains(PROXIES).alias("is_proxy"),
        agent.str.contains(BARE).alias("says_nothing"),
    )


@cache
def names_itself(agent: str) -> bool:
    """Whether the public list of crawlers knows the agent."""
    from crawleruseragents import is_crawler

    return bool(is_crawler(agent))


def _addresses(rows: pl.DataFrame, networks: Networks) -> pl.DataFrame:
    """Which list each distinct address is on."""
    apple, scanners = _parsed(networks.apple), _parsed(networks.scanners)
    distinct = rows["address"].unique()
    return pl.DataFrame(
        {
            "address": distinct,
            "from_apple": [_within(a, apple) for a in distinct],
            "from_scanner": [_within(a, scanners) for a in distinct],
        },
        schema={"address": pl.String, "from_apple": pl.Boolean, "from_scanner": pl.Boolean},
    )


def _parsed(cidrs: Iterable[str]) -> list[Network]:
    return [ip_network(cidr) for cidr in cidrs]


def _within(address: str | None, networks: list[Network]) -> bool:
    try:
        own = ip_network(address or "", strict=False)
    except ValueError:
        return False
    first, last = own.network_address, own.broadcast_address
    return any(first in network and last in network for network in networks)


def _with_company(rows: pl.DataFrame) -> pl.DataFrame:
    """Links of the mail, and mails of the network, that were followed around the same time."""
    clicks = rows.filter(pl.col("type") == "click").select(*MAIL, "slot", "address", "timestamp")
    for name, seconds in (("in_burst", BURST_S), ("in_sweep", SWEEP_S)):
        # On both sides: the first click of a burst is as much a program's as the last.
        near = clicks.rolling(
            "timestamp", period=f"{2 * seconds}s", offset=f"-{seconds}s", closed="both",
            group_by=MAIL,
        ).agg(pl.col("slot").n_unique().alias(name))  # fmt: skip
        rows = rows.join(near.unique(), on=[*MAIL, "timestamp"], how="left")
    crowd = (
        clicks.drop_nulls("address")
        .sort("address", "timestamp")
        .rolling("timestamp", period=f"{CROWD_S}s", offset=f"-{CROWD_S // 2}s", closed="both",
                 group_by="address")
        .agg(pl.struct(MAIL).n_unique().alias("in_crowd"))
    )  # fmt: skip
    return rows.join(crowd.unique(), on=["address", "timestamp"], how="left")
