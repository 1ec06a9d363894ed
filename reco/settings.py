"""Addresses and secrets, from the environment (RECO_*) only. Nothing is read at import."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are. An address left out means the embedded service under `home`."""

    model_config = SettingsConfigDict(env_prefix="RECO_", extra="ignore", frozen=True)

    home: Path = Field(Path(".reco"), description="embedded state: lake, databases, outbox, keys")
    lake: str | None = Field(None, description="Parquet root: a path or any pyarrow filesystem URI")
    redis_url: SecretStr | None = Field(None, description="redis://… of Redis 7.4+ or Valkey")
    database_url: SecretStr | None = Field(
        None, description="postgresql://… for subscribers, ledger"
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
        None, description="signs links; made under home when missing"
    )
