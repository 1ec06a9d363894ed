"""Addresses of servers that are not ours: whether each is well formed, and whether it answers."""

import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit

import psycopg
import redis

from reco.errors import ConfigError, ServiceUnavailable
from reco.settings import Settings

CONNECT_TIMEOUT_S: Final = 3.0
SCHEMES: Final = {
    "redis_url": ("redis", "rediss", "unix"),
    "database_url": ("postgresql",),
    "smtp_url": ("smtp", "smtps"),
    "mlflow_uri": ("http", "https", "sqlite", "postgresql", "mysql", "file", "databricks"),
    "public_url": ("http", "https"),
}
SMTP_PORTS: Final = {"smtp": 25, "smtps": 465}


def check_form(settings: Settings) -> None:
    """Raise one ConfigError that names every malformed address; no password is shown."""
    wrong = []
    for name, schemes in SCHEMES.items():
        value = getattr(settings, name)
        url = value if value is None or isinstance(value, str) else value.get_secret_value()
        if url is not None and (problem := _problem(url, schemes)):
            wrong.append(f"RECO_{name.upper()}: {problem}")
    if wrong:
        raise ConfigError(
            "An address in the environment cannot be understood.",
            "; ".join(wrong),
            "Correct it, or leave it out to use the embedded server.",
        )


def _problem(url: str, schemes: tuple[str, ...]) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is no number
    except ValueError as error:
        return str(error)
    if parts.scheme not in schemes:
        return f"it must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
    local = parts.scheme in ("unix", "sqlite", "file", "databricks")
    # postgresql:///name?host=/run/postgresql has its host in the query.
    if not local and not parts.hostname and "host=" not in parts.query:
        return "it names no host"
    return None


def check_answers(settings: Settings) -> None:
    """Raise ServiceUnavailable when a configured Redis, PostgreSQL or SMTP server is not there."""
    checks: dict[str, Callable[[str], None]] = {
        "redis_url": lambda url: connect_redis(url).close(),
        "database_url": check_postgres,
        "smtp_url": check_smtp,
    }
    for name, check in checks.items():
        secret = getattr(settings, name)
        if secret is not None:
            check(secret.get_secret_value())


def connect_redis(url: str) -> redis.Redis:
    """Client of a Redis or Valkey that answers; replies are bytes.

    Raises ServiceUnavailable when it does not answer or refuses the login.
    """
    client = redis.Redis.from_url(
        url,
        decode_responses=False,
        legacy_responses=False,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
    )
    try:
        client.ping()
    except redis.RedisError as error:
        client.close()
        raise ServiceUnavailable(
            f"Redis at {_shown(url)} does not answer.",
            str(error),
            "Check RECO_REDIS_URL, or leave it out to use the embedded server.",
        ) from error
    return client


def check_postgres(url: str) -> None:
    """Log in once. Raises ServiceUnavailable."""
    try:
        psycopg.connect(url, connect_timeout=int(CONNECT_TIMEOUT_S)).close()
    except psycopg.Error as error:
        raise ServiceUnavailable(
            f"PostgreSQL at {_shown(url)} does not answer.",
            str(error).strip().splitlines()[-1],
            "Check RECO_DATABASE_URL, or leave it out to use the embedded server.",
        ) from error


def check_smtp(url: str) -> None:
    """Connect and hear the greeting. Raises ServiceUnavailable."""
    parts = urlsplit(url)
    port = parts.port or SMTP_PORTS[parts.scheme]
    try:
        with socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_S) as connection:
            # With smtps the server speaks only after the TLS handshake, which the sender makes.
            greeting = b"220" if parts.scheme == "smtps" else connection.recv(512)
            why = "" if greeting.startswith(b"220") else f"It said {greeting[:80]!r}."
    except OSError as error:
        why = str(error)
    if why:
        raise ServiceUnavailable(
            f"SMTP server at {_shown(url)} does not answer.",
            why,
            "Check RECO_SMTP_URL, or leave it out to write the mails to the embedded outbox.",
        )


def _shown(url: str) -> str:
    """An address without its login."""
    parts: SplitResult = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
