"""Routes for the calls that come by the hundred a second: key, body, answer, and nothing between.

FastAPI looks through nested routers and solves dependencies for each request, which costs half as
much as the rest of the call. These routes stand in its OpenAPI like any other.
"""

from collections.abc import Awaitable, Callable, Coroutine
from inspect import signature
from typing import Any, Final

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

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
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            (body,) = signature(endpoint).parameters.values()
            take: type[BaseModel] = body.annotation

            async def handle(request: Request) -> Response:
                given = request.headers
                await check(given.get("authorization", ""), given.get("x-api-key", ""))
                try:
                    asked = take.model_validate_json(await request.body())
                except ValidationError as error:
                    raise RequestValidationError(
                        [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
                    ) from error
                answer = await endpoint(asked)
                return Response(answer.model_dump_json(), media_type=JSON)

            return handle

    app.router.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        dependencies=[Depends(check)],  # for OpenAPI: `handle` asks it itself
        route_class_override=DirectRoute,
    )
