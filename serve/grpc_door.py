"""The gRPC service of reco.proto: same key, same checks and same errors as /v1 over HTTP.

Takes messages, gives messages; an error is a status code, its words, and `reco-code` as trailing
metadata. `add_service` is what `grpc_servicer_functions` of configs/serve.yaml names.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf.json_format import MessageToDict, SerializeToJsonError
from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError
from ray.serve.grpc_util import RayServegRPCContext

from reco.errors import InputError, RecoError
from serve import calls, reco_pb2
from serve.problems import invalid, problem_of, unauthorized, unknown
from serve.reco_pb2_grpc import add_RecoServicer_to_server
from serve.schemas import Problem, RecommendRequest, SendRequest

__all__ = ["GrpcDoor", "add_service"]

log = structlog.get_logger()

CODES: Final[Mapping[int, grpc.StatusCode]] = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    500: grpc.StatusCode.INTERNAL,
    502: grpc.StatusCode.ABORTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
MOST_WORDS: Final = 2_000  # clients take 8 KB of metadata, and lose the status with more
Body = TypeVar("Body", bound=BaseModel)

add_service = add_RecoServicer_to_server


class GrpcDoor:
    """Answers the two calls."""

    def __init__(self, asked: calls.Asked, api_key: str) -> None:
        self._asked = asked
        self._api_key = api_key

    async def recommend(
        self, request: reco_pb2.RecommendRequest, context: RayServegRPCContext
    ) -> reco_pb2.RecommendResponse:
        """Ranked items; empty with a status code when it cannot be done."""
        try:
            body = self._checked(RecommendRequest, request, context)
            found = await calls.recommend(self._asked, body)
        except Exception as error:  # noqa: BLE001 - whatever happens has a status code
            refuse(context, _problem(error))
            return reco_pb2.RecommendResponse()
        return reco_pb2.RecommendResponse(
            users=[
                reco_pb2.UserPicks(
                    user_id=user.user_id,
                    picks=[reco_pb2.Pick(**pick.model_dump()) for pick in user.picks],
                )
                for user in found.users
            ],
            model=found.model,
            fallback=found.fallback,
            took_ms=found.took_ms,
        )

    async def send(
        self, request: reco_pb2.SendRequest, context: RayServegRPCContext
    ) -> reco_pb2.SendResponse:
        """Where the delivery is; empty with a status code when it cannot be told."""
        try:
            sent = await calls.send(self._asked, self._checked(SendRequest, request, context))
        except Exception as error:  # noqa: BLE001 - whatever happens has a status code
            refuse(context, _problem(error))
            return reco_pb2.SendResponse()
        return reco_pb2.SendResponse(**sent.model_dump())

    def _checked(self, kind: type[Body], request: Message, context: RayServegRPCContext) -> Body:
        """The request as HTTP would take it. Raises ValidationError, PermissionError."""
        given = dict(context.invocation_metadata())
        key, bearer = given.get("x-api-key", ""), given.get("authorization", "")
        if not calls.is_key(self._api_key, bearer, key):
            raise PermissionError
        try:
            body: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
        except (SerializeToJsonError, ValueError) as error:  # a time of no calendar, a NaN
            raise InputError("The request is not valid.", str(error)) from error
        return kind.model_validate(body)


def refuse(context: RayServegRPCContext, problem: Problem) -> None:
    """End the call with the status code and the words of a problem."""
    words = (problem.title, problem.detail, problem.todo)
    context.set_code(CODES[problem.status])
    context.set_details(" ".join(word for word in words if word)[:MOST_WORDS])
    context.set_trailing_metadata([("reco-code", problem.code)])


def _problem(error: Exception) -> Problem:
    if isinstance(error, RecoError):
        return problem_of(error)
    if isinstance(error, ValidationError):
        return invalid(error.errors())
    if isinstance(error, PermissionError):
        return unauthorized()
    log.error("an unknown error", exc_info=error)
    return unknown()
