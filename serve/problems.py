"""Errors as problem+json (RFC 9457): the one table of HTTP statuses over reco.errors."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from reco import errors
from serve.schemas import Problem

log = structlog.get_logger()

# Most special first; `code` is what clients may rely on.
STATUSES: Final[Mapping[type[errors.RecoError], tuple[int, str]]] = {
    errors.TemplateError: (422, "template"),
    errors.ConfigError: (422, "config"),
    errors.InputError: (422, "input"),
    errors.NotFound: (404, "not_found"),
    errors.Conflict: (409, "conflict"),
    errors.ModelMismatch: (503, "model_mismatch"),
    errors.ServiceUnavailable: (503, "unavailable"),
    errors.SendDeferred: (503, "send_deferred"),
    errors.SendFailed: (502, "send_failed"),
    errors.SendUncertain: (502, "send_uncertain"),
    errors.RecoError: (500, "internal"),
}
CODES: Final = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}


def problem_of(error: errors.RecoError) -> Problem:
    """The problem that stands for an error."""
    status, code = next(found for kind, found in STATUSES.items() if isinstance(error, kind))
    return Problem(title=error.what, status=status, code=code, detail=error.why, todo=error.todo)


def invalid(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """The problem of a request that does not fit its schema; `errors` as pydantic lists them."""
    detail = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors)
    return Problem(title="The request is not valid.", status=422, code="invalid", detail=detail)


def unauthorized() -> Problem:
    """The problem of a request without the key."""
    title = "The API key is missing or wrong."
    return Problem(title=title, status=401, code=CODES[401], detail="")


def unknown() -> Problem:
    """The problem that nobody foresaw; what it was stands in the log."""
    return Problem(title="Something went wrong.", status=500, code="internal", detail="")


def respond(problem: Problem) -> JSONResponse:
    """A problem as a response."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}
    return JSONResponse(
        problem.model_dump(),
        problem.status,
        headers.get(problem.status),
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Answer every error of this application as a problem."""
    app.add_exception_handler(errors.RecoError, _reco)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


async def _reco(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.RecoError)
    return respond(problem_of(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return respond(invalid(error.errors()))


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "http")
    return respond(Problem(title=str(error.detail), status=error.status_code, code=code, detail=""))


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    log.error("an unknown error", exc_info=error)
    return respond(unknown())
