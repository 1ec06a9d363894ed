"""Addresses and secrets, from the environment (RECO_*) only. Nothing is read at import."""

import os
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reco.errors import ConfigError

PREFIX = "RECO_"


class Settings(BaseSettings):
    """Where things are. An address left out means the embedded service under `home`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    home: Path = Field(Path(".reco"), description="embedded state: lake, databases, outbox, keys")
    lake: str | None = Field(None, description="Parquet root: a path or any pyarrow filesystem URI")
    redis_url: SecretStr | None = Field(None, description="redis://… of Redis 7.4+ or Valkey")
    redis_timeout_s: float = Field(
        0.5, gt=0, description="a mail waits so long for an answer of Redis, then does without"
    )
    database_url: SecretStr | None = Field(
        None, description="postgresql://… for subscribers, ledger"
    )
    bus_url: SecretStr | None = Field(
        None, description="event bus: redis://…, kafka://host:9092,… or amqp://…; out: that Redis"
    )
    mlflow_uri: str | None = Field(None, description="MLflow tracking server")
    smtp_url: SecretStr | None = Field(
        None, description="smtp://user:password@host:587, smtps://…:465"
    )
    public_url: str = Field(
        "http://127.0.0.1:8000", description="root of links and images in mails"
    )
    api_key: SecretStr | None = Field(
        None, description="key of the /v1 endpoints; made when missing"
    )
    link_key: SecretStr | None = Field(
        None, description="signs links: 16 to 64 bytes in hexadecimal; made when missing"
    )

    verifier_url: SecretStr | None = Field(
        None, description="a paid verifier of addresses: https://…?email={address}"
    )
    dkim_key: SecretStr | None = Field(
        None, description="private key that signs mails, PEM or its path; out: the relay signs"
    )
    dkim_selector: str = Field(
        "reco",
        pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
        description="of the key's DNS record",
    )

    @field_validator("link_key")
    @classmethod
    def _hexadecimal(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                size = len(bytes.fromhex(value.get_secret_value()))
            except ValueError:
                size = 0
            if not 16 <= size <= 64:
                raise ValueError("must be 16 to 64 bytes in hexadecimal (openssl rand -hex 32)")
        return value


def read_settings(home: Path | None = None) -> Settings:
    """The settings of this process's environment; `home` stands above RECO_HOME.

    Raises ConfigError that names everything wrong at once. A RECO_ name that is no setting is
    wrong too: a misspelt address would quietly start an embedded server instead.
    """
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    wrong = []
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            near = get_close_matches(name.upper(), known, n=1)
            wrong.append(f"{name} is no setting" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        settings = Settings() if home is None else Settings(home=home)
    except ValidationError as error:
        for entry in error.errors(include_input=False):
            message = entry["msg"].removeprefix("Value error, ")
            wrong.append(f"{PREFIX}{str(entry['loc'][0]).upper()}: {message}")
    if wrong:
        raise ConfigError(
            "The environment holds settings that cannot be used.",
            "; ".join(wrong),
            f"Correct or unset them. The settings are {', '.join(known)}.",
        )
    return settings
