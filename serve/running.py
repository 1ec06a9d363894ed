"""The application for the time of a command: the one in this cluster, else one of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from serve.app import AppArgs, build
from serve.graph import APP

LOOPBACK: Final = "127.0.0.1"


@contextmanager
def application(args: AppArgs) -> Iterator[None]:
    """Use the application until the block ends; one that was there before is left as it is.

    Needs a connection to a Ray cluster.
    """
    if _runs():
        yield
        return
    serve.start(proxy_location="Disabled")  # commands talk by handle
    serve.run(build(args), name=APP, route_prefix=None)
    try:
        yield
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]


def _runs() -> bool:
    try:
        return serve.status().applications[APP].status == ApplicationStatus.RUNNING
    except (KeyError, RayServeException):
        return False
