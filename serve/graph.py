"""The path of a chunk: Features -> Scorer -> Rules -> Renderer, each a deployment behind a handle.

The gateway and the senders of a campaign hold one each. What a stage gives travels to the next by
reference; only the Scorer is waited for, because it alone may be late or fail without the mail
being lost.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve.chunks import Assembled, Recommended, Request, ScoredChunk

log = structlog.get_logger()

APP: Final = "default"
SCORER_LATE: Final = "scorer_late"
SCORER_DOWN: Final = "scorer_down"
HURRY: Final = "behind_schedule"
# A replica that died is asked for again: another one answers, or it is back in some seconds.
AGAIN_AFTER_S: Final = (0.1, 1.0, 3.0, 10.0, 20.0)


@dataclass(slots=True)
class Hurry:
    """Whether the model is left out, because the campaign is behind schedule (serve.schedule)."""

    on: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Handles of the four stages, and how long a chunk may wait for the scorer.

    Fresh slates are used in a hurry too; whoever has none gets the rungs below the live model.
    """

    scorer_budget_s: float
    features: DeploymentHandle[Any]
    scorer: DeploymentHandle[Any]
    rules: DeploymentHandle[Any]
    renderer: DeploymentHandle[Any]
    hurry: Hurry = field(default_factory=Hurry)

    @classmethod
    def of_app(cls, scorer_budget_s: float, app: str = APP) -> "Graph":
        """The graph of the application that runs in this cluster."""
        features, scorer, rules, renderer = (
            serve.get_deployment_handle(stage, app)
            for stage in ("Features", "Scorer", "Rules", "Renderer")
        )
        return cls(scorer_budget_s, features, scorer, rules, renderer)

    async def assemble(self, request: Request) -> Assembled:
        """The mails of a chunk.

        Raises ServiceUnavailable when the subscribers cannot be read, NotFound or TemplateError
        when the campaign's template cannot be used, ConfigError for a replay of a time before
        features or champion. A chunk whose replica dies is made once more: nothing is counted
        twice, and no mail has left yet.
        """
        for wait_s in AGAIN_AFTER_S:
            try:
                return await self._assemble(request)
            except (RayActorError, DeploymentUnavailableError) as error:
                log.warning("a replica died; its chunk is made again", why=_first_line(error))
                await asyncio.sleep(wait_s)
        return await self._assemble(request)

    async def recommend(self, request: Request) -> Recommended:
        """The slates of a chunk in words. Raises what `assemble` does of the first stage."""
        features, picked = await self._picked(request)
        with _as_raised():
            recommended: Recommended = await self.renderer.describe.remote(features, picked)
        return recommended

    async def _assemble(self, request: Request) -> Assembled:
        features, picked = await self._picked(request)
        with _as_raised():
            assembled: Assembled = await self.renderer.make.remote(features, picked)
        return assembled

    async def _picked(self, request: Request) -> tuple[Any, Any]:
        features = self.features.read.remote(request)
        scored, fallback = await self._scored(features)
        return features, self.rules.pick.remote(features, scored, fallback)

    async def _scored(self, features: Any) -> tuple[ScoredChunk | None, str]:
        """The candidates, or why there are none.

        A failure of Features shows here too; it comes up again, and counts, in the next stage.
        """
        if self.hurry.on:
            return None, HURRY
        try:
            async with asyncio.timeout(self.scorer_budget_s):
                return await self.scorer.score.remote(features), ""
        except TimeoutError:
            log.warning("the scorer is late", budget_s=self.scorer_budget_s)
            return None, SCORER_LATE
        except Exception as error:  # noqa: BLE001 - however the scorer fails, the mail goes out
            log.warning("the scorer does not answer", error=str(error))
            return None, SCORER_DOWN


@contextmanager
def _as_raised() -> Iterator[None]:
    """Raise what a replica raised, without the coats that Ray puts on it, one a stage."""
    try:
        yield
    except RayTaskError as error:
        cause: BaseException = error
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        raise cause from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
