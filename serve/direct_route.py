"""Routes for the calls that come by the hundred a second: key, body, answer, and nothing between.

FastAPI looks through nested routers and solves dependencies for each request, 80 of the 105 us that
a call takes without its work. These routes stand in its OpenAPI like any other.
"""

from collections.abc import Awaitable, Callable, Coroutine
from inspect import signature
from typing import Any, Final

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

KeyCheck = Callable[[str, str], Awaitable[None]]  # takes the headers authorization and x-api-key
JSON: Final = "application/json"


def add_direct_route(
    app: FastAPI,
    path: str,
    endpoint: Callable[..., Awaitable[BaseModel]],
    check: KeyCheck,
) -> None:
    """POST `path` calls `endpoint(body)`, a model in and a model out, for who has the key."""

    class DirectRoute(APIRoute):
        """Asks for the key itself: dependencies of a route stand in OpenAPI only."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            (body,) = signature(endpoint).parameters.values()
            take: type[BaseModel] = body.annotation

            async def handle(request: Request) -> Response:
                given = request.headers
                await check(given.get("authorization", ""), given.get("x-api-key", ""))
                answer = await endpoint(await _taken(take, request))
                return Response(answer.model_dump_json(), media_type=JSON)

            return handle

    app.router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        dependencies=[Depends(check)],
        route_class_override=DirectRoute,
    )


async def _taken(model: type[BaseModel], request: Request) -> BaseModel:
    """The body. Raises RequestValidationError, or HTTPException when its client hung up."""
    try:
        return model.model_validate(await request.json())
    except ValidationError as error:
        wrong = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(wrong) from error
    except (ValueError, RecursionError) as error:
        raise RequestValidationError(
            [{"type": "json_invalid", "loc": ("body",), "msg": f"This is no JSON: {error}"}]
        ) from error
    except ClientDisconnect:
        raise HTTPException(400, "The request ended early.") from None
