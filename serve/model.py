"""Which model the Scorer uses: the champion that Redis names, or one fixed by configuration."""

import time
from threading import Lock
from typing import Any, Final, Literal

import redis
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reco.catalogue import Catalogue
from reco.errors import ConfigError, RecoError
from reco.models.registry import champion
from reco.models.scorer import Scorer
from serve.scoring import Scoring

log = structlog.get_logger()

REFRESH_S: Final = 5.0  # how soon a newly promoted champion is used


class ScorerConfig(BaseModel):
    """`user_config` of the Scorer; a change swaps the model in a running replica."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, description="directory of an artifact; null: the champion")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where scores are computed")


class CurrentModel:
    """Keeps a Scoring on the right model. Threads may share it."""

    def __init__(self, client: redis.Redis, catalogue: Catalogue, scoring: Scoring) -> None:
        self._redis = client
        self._catalogue = catalogue
        self._scoring = scoring
        self._config = ScorerConfig()
        self._directory = ""
        self._looked_at = -REFRESH_S
        self._lock = Lock()

    def configure(self, config: dict[str, Any]) -> None:
        """Take another configuration. Raises ConfigError, NotFound or ModelMismatch."""
        try:
            self._config = ScorerConfig.model_validate(config)
        except ValidationError as error:
            raise ConfigError("user_config of the Scorer is wrong.", str(error)) from error
        with self._lock:
            if self._config.model:
                self._load(self._config.model)
            else:
                self._looked_at = -REFRESH_S
        if not self._config.model:
            self.refresh()

    def refresh(self) -> None:
        """Follow the champion; looked up every REFRESH_S, by one thread while the others go on.

        A champion that cannot be loaded leaves the model as it is, and is reported.
        """
        if self._config.model or time.monotonic() - self._looked_at < REFRESH_S:
            return
        if not self._lock.acquire(blocking=False):
            return
        try:
            found = champion(self._redis)
            if found is not None and found.directory != self._directory:
                self._load(found.directory)
        except (RecoError, redis.RedisError) as error:
            log.warning("the champion cannot be used", why=str(error))
        finally:
            self._looked_at = time.monotonic()
            self._lock.release()

    def _load(self, directory: str) -> None:
        scorer = Scorer.load(directory, self._catalogue, self._config.device)
        self._scoring.swap(scorer)
        self._directory = directory
        log.info("model loaded", version=scorer.version, directory=directory)
